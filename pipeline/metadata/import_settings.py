"""Turn a parameters text into options: validated values, and a warning for each that is left out.

Texts are untrusted: each value is validated by itself, and a model is one of the names that the
caller gives, never a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import samplers
from ..errors import InputError
from ..options import GenerateOptions
from .infotext import MAX_TEXT, clean_text, parse

MAX_SHOWN = 2_000  # characters of a value that is only displayed
MAX_VALUE = 200  # characters of a number or a name
HASH_DIGITS = 10

# Names in the text, in lower case without spaces, underscores and hyphens: A1111's and
# Forge's, Civitai's (cfgScale), Fooocus's (Scheduler). For guidance rescale: SD.Next and A1111's
# extensions ("CFG rescale", "CFG Rescale φ"), Forge's ("Rescale CFG").
NUMBERS = {
    "steps": "steps",
    "cfgscale": "cfg",
    "guidancescale": "cfg",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "clipskip": "clip_skip",
    "variationseed": "variation_seed",
    "variationseedstrength": "variation_strength",
    "cfgrescale": "cfg_rescale",
    "cfgrescaleφ": "cfg_rescale",
    "rescalecfg": "cfg_rescale",
}
TEXTS = {
    "sampler": "sampler",
    "samplername": "sampler",
    "scheduletype": "schedule",
    "scheduler": "schedule",
    "size": "size",
    "model": "model",
    "modelhash": "hash",
}

# A key of the JSON that other programs write instead, and the program.
JSON_WRITERS = {
    "sui_image_params": "SwarmUI",
    "extraMetadata": "Civitai's generator",
    "full_prompt": "Fooocus",
}


@dataclass(frozen=True)
class Settings:
    """The settings of a parameters text; an option that is not in it has the model's default.

    fields    valid values of GenerateOptions, by field
    model     a name from the caller's list, or None
    others    all other values, to display
    warnings  a sentence for each value that was left out, with the reason
    """

    fields: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    others: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse_settings(text: str, models: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a parameters text of this program, A1111, Forge, Civitai or Fooocus.

    models: {name: first ten hex digits of its SHA-256} of the models to choose from; a matching
    hash has priority over the name. Never raises: invalid values are left out with a warning.
    """
    if len(text) > MAX_TEXT:
        return Settings(
            warnings=(f"The text has {len(text):,} characters; at most {MAX_TEXT:,} are read.",)
        )
    text = clean_text(text)
    if not text.strip():
        return Settings(warnings=("The text is empty.",))
    foreign = _parse_foreign_json(text)
    if foreign:
        return foreign
    found = parse(text)
    fields: dict[str, Any] = {}
    warnings: list[str] = []

    def take(name: str, value: object) -> None:
        try:
            fields[name] = getattr(GenerateOptions(**{name: value}), name)
        except InputError as error:
            warnings.append(str(error))

    take("prompt", found.pop("Prompt"))
    take("negative", found.pop("Negative prompt"))
    if not found:
        warnings.append('There is no line of settings ("Steps: 20, Sampler: ..."), only a prompt.')
    requested: dict[str, str] = {}
    others: dict[str, str] = {}
    for key, value in found.items():
        name = re.sub(r"[\s_-]", "", key).casefold()
        if name in NUMBERS:
            take(NUMBERS[name], _shorten(value, MAX_VALUE))
        elif name in TEXTS:
            requested[TEXTS[name]] = _shorten(value, MAX_VALUE)
        else:
            others[key] = value
    if "size" in requested:
        width, cross, height = re.sub(r"\s", "", requested["size"].lower()).partition("x")
        if cross:
            take("width", width)
            take("height", height)
        else:
            warnings.append(f"Size must be WIDTHxHEIGHT such as 512x512, not {_quote(width)}.")
    _take_sampler(requested, take, fields, warnings)
    model = _choose_model(requested, models or {}, others, warnings)
    shown = {key: _shorten(clean_text(value)) for key, value in others.items()}
    return Settings(fields, model, shown, tuple(warnings))


def _take_sampler(
    requested: dict[str, str],
    take: Callable[[str, object], None],
    fields: dict[str, Any],
    warnings: list[str],
) -> None:
    """Take sampler and schedule; older texts write both as one name, "DPM++ 2M Karras"."""
    schedule = None
    if "sampler" in requested:
        key, schedule = samplers.split_name(requested["sampler"]) or (requested["sampler"], None)
        take("sampler", key)
    schedule = requested.get("schedule", schedule)
    if schedule is not None:
        take("schedule", schedule)
    if {"sampler", "schedule"} <= set(fields):
        reason = samplers.check_pair(fields["sampler"], fields["schedule"])
        if reason:
            del fields["schedule"]
            warnings.append(reason)


def _choose_model(
    requested: dict[str, str],
    models: Mapping[str, str],
    others: dict[str, str],
    warnings: list[str],
) -> str | None:
    name, digest = requested.get("model"), requested.get("hash", "").lower()
    short = digest[:HASH_DIGITS]
    if re.fullmatch(rf"[0-9a-f]{{{HASH_DIGITS}}}", short):
        same = [n for n, h in models.items() if h[:HASH_DIGITS].lower() == short]
        if same:
            return name if name in same else same[0]
    if name is not None and name in models:
        if digest:
            warnings.append(
                f"The model {name} here has the hash {models[name] or 'unknown'}, the text says "
                f"{_quote(digest)}: the picture may come out another."
            )
        return name
    if name is None and not digest:
        return None
    others |= {k: v for k, v in (("Model", name), ("Model hash", requested.get("hash"))) if v}
    named = f"{_quote(name)} (hash {_quote(digest)})" if digest and name else _quote(name or digest)
    warnings.append(f"The model {named} is not here; choose another.")
    return None


def _parse_foreign_json(text: str) -> Settings | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    writer = next((w for key, w in JSON_WRITERS.items() if key in found), "another program")
    return Settings(
        others={
            clean_text(str(k)): _shorten(clean_text(str(v))) for k, v in list(found.items())[:100]
        },
        warnings=(f"The text is JSON of {writer}, not A1111's; nothing is taken from it.",),
    )


def _shorten(text: str, limit: int = MAX_SHOWN) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _quote(text: str) -> str:
    return repr(_shorten(text, 60))
