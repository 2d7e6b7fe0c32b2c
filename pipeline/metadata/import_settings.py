"""What a parameters text asks for: values that GenerateOptions takes, and a sentence for the rest.

A text comes from anywhere, so nothing in it is believed: each value is validated by itself, and a
model is one of the names that the caller gives, never a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import samplers
from ..errors import InputError
from ..options import GenerateOptions
from .infotext import MAX_TEXT, clean_text, parse

MAX_SHOWN = 2_000  # characters of a value that is only shown
MAX_VALUE = 200  # characters of a number or a name
HASH_DIGITS = 10

# The text's names, in small letters and without spaces, underscores and hyphens: A1111's and
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

# A name in the JSON that other programs write instead, and the program.
JSON_WRITERS = {
    "sui_image_params": "SwarmUI",
    "extraMetadata": "Civitai's generator",
    "full_prompt": "Fooocus",
}


@dataclass(frozen=True)
class Settings:
    """What a text asks for; what it does not say is the model's own default.

    fields    values that GenerateOptions takes, by its names
    model     a name from the caller's list, or None
    others    everything else that the text says, to be shown
    warnings  a sentence for each value that was left out, and why
    """

    fields: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    others: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse_settings(text: str, models: Mapping[str, str] | None = None) -> Settings:
    """The settings that a parameters text means, from this program, A1111, Forge, Civitai, Fooocus.

    models: {name: first ten hex digits of its SHA-256} of the models that can be chosen; the text's
    hash decides before its name does. Never raises: what is wrong is left out, with a warning.
    """
    if len(text) > MAX_TEXT:
        return Settings(
            warnings=(f"The text has {len(text):,} characters; at most {MAX_TEXT:,} are read.",)
        )
    text = clean_text(text)
    if not text.strip():
        return Settings(warnings=("The text is empty.",))
    foreign = _json_of_another_program(text)
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
    asked, others = {}, {}
    for key, value in found.items():
        name = re.sub(r"[\s_-]", "", key).casefold()
        if name in NUMBERS:
            take(NUMBERS[name], _cut(value, MAX_VALUE))
        elif name in TEXTS:
            asked[TEXTS[name]] = _cut(value, MAX_VALUE)
        else:
            others[key] = value
    if "size" in asked:
        width, cross, height = re.sub(r"\s", "", asked["size"].lower()).partition("x")
        if cross:
            take("width", width)
            take("height", height)
        else:
            warnings.append(f"Size must be WIDTHxHEIGHT such as 512x512, not {_quoted(width)}.")
    _plan(asked, take, fields, warnings)
    model = _model(asked, models or {}, others, warnings)
    shown = {key: _cut(clean_text(value)) for key, value in others.items()}
    return Settings(fields, model, shown, tuple(warnings))


def _plan(asked: dict[str, str], take, fields: dict[str, Any], warnings: list[str]) -> None:
    """Sampler and schedule, that older texts write as one name: "DPM++ 2M Karras"."""
    schedule = None
    if "sampler" in asked:
        key, schedule = samplers.split_name(asked["sampler"]) or (asked["sampler"], None)
        take("sampler", key)
    schedule = asked.get("schedule", schedule)
    if schedule is not None:
        take("schedule", schedule)
    if {"sampler", "schedule"} <= set(fields):
        reason = samplers.check_pair(fields["sampler"], fields["schedule"])
        if reason:
            del fields["schedule"]
            warnings.append(reason)


def _model(
    asked: dict[str, str], models: Mapping[str, str], others: dict[str, str], warnings: list[str]
) -> str | None:
    name, digest = asked.get("model"), asked.get("hash", "").lower()
    short = digest[:HASH_DIGITS]
    if re.fullmatch(rf"[0-9a-f]{{{HASH_DIGITS}}}", short):
        same = [n for n, h in models.items() if h[:HASH_DIGITS].lower() == short]
        if same:
            return name if name in same else same[0]
    if name is not None and name in models:
        if digest:
            warnings.append(
                f"The model {name} here has the hash {models[name] or 'unknown'}, the text says "
                f"{_quoted(digest)}: the picture may come out another."
            )
        return name
    if name is None and not digest:
        return None
    others |= {k: v for k, v in (("Model", name), ("Model hash", asked.get("hash"))) if v}
    said = (
        f"{_quoted(name)} (hash {_quoted(digest)})" if digest and name else _quoted(name or digest)
    )
    warnings.append(f"The model {said} is not here; choose another.")
    return None


def _json_of_another_program(text: str) -> Settings | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    writer = next((w for key, w in JSON_WRITERS.items() if key in found), "another program")
    return Settings(
        others={clean_text(str(k)): _cut(clean_text(str(v))) for k, v in list(found.items())[:100]},
        warnings=(f"The text is JSON of {writer}, not A1111's; nothing is taken from it.",),
    )


def _cut(text: str, limit: int = MAX_SHOWN) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _quoted(text: str) -> str:
    return repr(_cut(text, 60))
