"""Parse the axes of a grid, "NAME: VALUES", in the syntax of A1111's X/Y/Z plot.

    cfg: 3, 5, 7            steps: 4-20 (+4)          variation strength: 0-1 [5]
    prompt: red, blue       sampler: Euler a, ddim    size: 128x128, 192x128

Values are separated by commas; a value with a comma is quoted. `4-20` is a range with step 1,
`4-20 (+4)` one with step 4, and `0-1 [5]` is five evenly spaced numbers. On a prompt axis the first
value is text to search for in the prompt, and each value replaces it. A seed of -1 is random.
"""

from __future__ import annotations

import csv
import io
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..errors import InputError, closest, short_repr
from ..options import LIMITS, MAX_SEED, GenerateOptions
from ..samplers import SAMPLERS, SCHEDULES

MAX_CELLS = 100  # pictures of a grid
OWN_VAE = ("own", "automatic", "none")  # values that mean the model's own autoencoder

# Axes and their labels, A1111's where it has them. NAMES adds the other fields of GenerateOptions.
LABELS = {
    "prompt": "Prompt S/R",
    "negative": "Negative prompt",
    "sampler": "Sampler",
    "schedule": "Schedule type",
    "steps": "Steps",
    "cfg": "CFG Scale",
    "seed": "Seed",
    "size": "Size",
    "width": "Width",
    "height": "Height",
    "clip_skip": "Clip skip",
    "cfg_rescale": "CFG rescale",
    "variation_seed": "Var. seed",
    "variation_strength": "Var. strength",
    "model": "Checkpoint name",
    "vae": "VAE",
    "attention": "Attention",
    "group_norm": "GroupNorm",
}
NAMES = LABELS | {
    name: name.replace("_", " ").capitalize()
    for name in GenerateOptions.model_fields
    if name not in LABELS and name != "count"
}
ALIASES = {
    "checkpoint": "model",
    "variationseedstrength": "variation_strength",
    "cfgscale": "cfg",
    "scheduler": "schedule",
}
WHOLE_NUMBERS = {
    n for n, f in GenerateOptions.model_fields.items() if f.annotation in (int, int | None)
}
TABLES: dict[str, Mapping[str, Any]] = {
    "sampler": SAMPLERS,
    "schedule": SCHEDULES,
}  # axes whose values are keys of a table, whose rows have the labels

_NUMBER = r"([+-]?\d{1,12}(?:\.\d{0,12})?)"
_RANGE = re.compile(
    rf"{_NUMBER}\s*-\s*{_NUMBER}\s*(?:\(\s*{_NUMBER}\s*\)|\[\s*(\d{{1,12}})\s*\])?", re.ASCII
)


@dataclass(frozen=True)
class Axis:
    """One axis of a grid (A1111's X/Y/Z plot): an option and the values that it takes.

    letter: "x", "y" or "z". name: the option, such as "cfg" or "model". values: the option's values
    in its type, or texts for "prompt", "size", "model" and "vae". written: the values as the user
    wrote them.
    """

    letter: str
    name: str
    values: tuple[Any, ...]
    written: str

    @property
    def label(self) -> str:
        """The option's name for users, such as "CFG Scale"."""
        return NAMES[self.name]

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each value on the contact sheet."""
        return tuple(self._format_value(value) for value in self.values)

    def _format_value(self, value: Any) -> str:
        if self.name in TABLES:
            return TABLES[self.name][value].label
        if isinstance(value, float):
            return f"{value:.8g}"
        return str(value) if str(value).strip() else "(empty)"

    @property
    def fields(self) -> dict[str, str]:
        """The axis as fields of A1111's parameters text: {"X Type": ..., "X Values": ...}."""
        letter = self.letter.upper()
        found = {f"{letter} Type": self.label, f"{letter} Values": self.written}
        if self.name.endswith("seed"):
            found[f"Fixed {letter} Values"] = ", ".join(map(str, self.values))
        return found


def parse_axis(letter: str, text: str) -> Axis:
    """Parse what the user wrote for an axis of a grid, "NAME: VALUES" such as "cfg: 3, 5, 7".

    letter: "x", "y" or "z". Raises InputError in one sentence that names the axis and the value.
    """
    found = re.fullmatch("([^:：]*)([:：]?)(.*)", text, re.DOTALL)
    assert found is not None
    name, colon, written = found.groups()
    key, written = _KEYS.get(_normalize(name)), written.strip()
    if key is None:
        there = closest(name[:100], NAMES)
        raise InputError(
            f"On the axis {letter}, there is no option {short_repr(name)}; there is {there}."
        )
    if not colon or not written:
        raise InputError(
            f'The axis {letter} has no values; write "{key}: " and values with commas.'
        )
    try:
        values = tuple(_parse_value(key, value) for value in _split_values(key, written))
    except InputError as error:
        raise prefix_error(f"On the axis {letter}", error) from None
    return Axis(letter, key, values, written)


def prefix_error(where: str, error: Exception) -> InputError:
    """Return `error` with its sentence after `where` and a comma: "On the axis x, there ..."."""
    sentence = str(error)
    if sentence[1:2].islower():
        sentence = sentence[:1].lower() + sentence[1:]
    return InputError(f"{where}, {sentence}")


def apply_value(fields: dict[str, Any], axis: Axis, value: Any) -> dict[str, Any]:
    """Return a copy of a picture's options in which a grid's axis has the value `value`.

    fields: the values of GenerateOptions by name, and "model" and "vae". The axis "prompt" instead
    replaces the text of its first value, wherever the prompts contain it, by `value`; raises
    InputError if neither does.
    """
    if axis.name == "size":
        width, height = _parse_size(value)
        return fields | {"width": width, "height": height}
    if axis.name != "prompt":
        return fields | {axis.name: value}
    searched = axis.values[0]
    texts = {name: fields[name] for name in ("prompt", "negative")}
    if not any(searched in text for text in texts.values()):
        raise InputError(
            f"On the axis {axis.letter}, {short_repr(searched)} is searched for and is neither in"
            " the prompt nor in the negative prompt."
        )
    return fields | {name: text.replace(searched, value) for name, text in texts.items()}


def fields_set_by(axis: Axis) -> tuple[str, ...]:
    """Return which options an axis of a grid sets, to refuse two axes that set the same one."""
    return {"size": ("width", "height"), "prompt": ()}.get(axis.name, (axis.name,))


def _normalize(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


_KEYS = ALIASES | {_normalize(name): key for key, label in NAMES.items() for name in (key, label)}


def _split_values(key: str, written: str) -> list[str]:
    """Split what follows "NAME:" in the text of a grid's axis into values, and expand ranges.

    key: the option, such as "cfg". Raises InputError for more than 100 values (MAX_CELLS) and for
    unbalanced quotes.
    """
    try:
        rows = list(csv.reader(io.StringIO(written, ""), skipinitialspace=True, strict=True))
    except csv.Error:
        raise InputError(
            f"{key} has a quote too many or too few: a value with commas stands in double quotes as"
            " a whole."
        ) from None
    texts = [text.strip() for row in rows for text in row]
    if key in LIMITS:
        texts = [value for text in texts for value in _expand_range(text, key in WHOLE_NUMBERS)]
    if len(texts) > MAX_CELLS:
        raise InputError(f"{key} has {len(texts)} values; a grid has at most {MAX_CELLS} pictures.")
    return texts


def _expand_range(text: str, whole: bool) -> list[str]:
    """Return the numbers of a range in a grid's axis, "4-20 (+4)", as texts; other text as it is.

    whole: whether the option takes whole numbers only. Raises InputError for no or more than 100
    values.
    """
    found = _RANGE.fullmatch(text)
    if not found or (whole and "." in text):
        return [text]
    start, end = Fraction(found[1]), Fraction(found[2])
    if found[4]:
        count, step = Fraction(found[4]), Fraction(0)
        if count > 1:
            step = (end - start) / (count - 1)
    else:
        step = Fraction(found[3] or (1 if start <= end else -1))
        count = Fraction((end - start) // step + 1 if step else 0)
    if count < 1:
        raise InputError(f"The range {short_repr(text)} has no values.")
    if count > MAX_CELLS:
        raise InputError(
            f"The range {short_repr(text)} has too many values;"
            f" a grid has at most {MAX_CELLS} pictures."
        )
    numbers = [start + step * i for i in range(int(count))]
    return [str(int(n)) if whole else str(float(n)) for n in numbers]


def _parse_value(key: str, text: str) -> Any:
    """Convert the text of one value of a grid's axis to the type of the option `key`.

    Raises InputError if it is invalid. A seed of -1 becomes a random one.
    """
    if key == "prompt":
        return text
    if key == "size":
        width, height = _parse_size(text)
        return f"{width}x{height}"
    if key in ("seed", "variation_seed") and text == "-1":
        return secrets.randbelow(MAX_SEED + 1)
    if not text and key != "negative":
        raise InputError(f"{key} has an empty value.")
    if key in ("model", "vae"):
        return OWN_VAE[0] if key == "vae" and text.casefold() in OWN_VAE else text
    return getattr(GenerateOptions(**{key: text}), key)


def _parse_size(text: str) -> tuple[int, int]:
    width, cross, height = re.sub(r"\s", "", text.lower()).replace("×", "x").partition("x")
    if not cross:
        raise InputError(f"size must be WIDTHxHEIGHT such as 512x512, not {short_repr(text)}.")
    options = GenerateOptions(width=width, height=height)
    assert options.width is not None and options.height is not None
    return options.width, options.height
