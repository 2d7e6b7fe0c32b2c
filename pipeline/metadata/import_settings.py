"""Convert a parameters text of A1111 and its like into validated options.

Texts are untrusted: each value is validated by itself, an invalid one is left out with a warning,
and a model must be one of the names that the caller gives, never a path.
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

# From a field's name in the text to the option. Names are in lower case without spaces, underscores
# and hyphens: those of A1111 and Forge, Civitai (cfgScale) and Fooocus (Scheduler); for guidance
# rescale those of SD.Next, A1111's extensions ("CFG rescale", "CFG Rescale φ") and Forge.
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

# Other programs write JSON instead. From a key that it has to the program's name.
JSON_WRITERS = {
    "sui_image_params": "SwarmUI",
    "extraMetadata": "Civitai's generator",
    "full_prompt": "Fooocus",
}


@dataclass(frozen=True)
class Settings:
    """The settings that were found in a parameters text (A1111's metadata of a picture).

    fields    from a field of GenerateOptions to its value, validated; fields that are not in the
              text are left out
    model     name, in the caller's list of models, of the model that the text names or gives the
              hash of; None if there is none
    others    all other values of the text by their names in it, to display
    warnings  a sentence for each value that was ignored, with the reason
    """

    fields: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    others: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse_settings(text: str, models: Mapping[str, str] | None = None) -> Settings:
    """Read options from a parameters text (a picture's metadata), to draw with the same settings.

    The text may be of this program, A1111, Forge, Civitai or Fooocus. models: the models to choose
    from, {name: first ten hex digits of the SHA-256}; one with the text's hash is preferred to one
    with its name. Never raises: invalid values are ignored, with a warning for each.
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
    """Add the sampler and the schedule of a parameters text to `fields`, problems to `warnings`.

    requested: the text's values of "sampler" and "schedule", where it has them; older texts write
    both as one name, "DPM++ 2M Karras". take(name, value): validates the value and adds it to
    `fields`, or a sentence to `warnings`.
    """
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
    """Return the name in `models` of the model that a parameters text requests, or None.

    requested: the text's values of "model" and "hash", where it has them. models: from name to the
    first ten hex digits of the SHA-256. A model that is not in `models` is added to `others`, and a
    sentence about it to `warnings`.
    """
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
    """Return the settings in another program's JSON, only to display; None for any other text.

    They are in the field `others`, none is used as an option; a warning says so and names the
    program.
    """
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
