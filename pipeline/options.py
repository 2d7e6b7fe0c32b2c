"""GenerateOptions: the options of text to image, validated for all interfaces in one place.

The command line, the web page, the web API and Python callers use it, and all limits are defined
here. `None` means the model's own default (sampler, schedule, steps, cfg, width, height, clip_skip,
attention, group_norm) or a random seed (seed, variation_seed).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .errors import InputError, closest, short_repr
from .samplers import SAMPLERS, SCHEDULES, check_pair, sampler_key, schedule_key

MAX_PROMPT = 10_000
MAX_SEED = 2**32 - 1
LIMITS = {  # field: (lowest, highest)
    "steps": (1, 200),
    "cfg": (0.0, 30.0),
    "cfg_rescale": (0.0, 1.0),
    "clip_skip": (1, 12),
    "seed": (0, MAX_SEED),
    "width": (64, 2048),
    "height": (64, 2048),
    "count": (1, 16),
    "variation_seed": (0, MAX_SEED),
    "variation_strength": (0.0, 1.0),
}


class GenerateOptions(BaseModel):
    """The options of text to image, immutable; `size=(width, height)` sets `width` and `height`.

    Raises InputError, with one sentence for each wrong field. For the fields that are None the
    loaded model's defaults are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field("", description="What the picture shows; may be empty (unconditional)")
    negative: str = Field("", description="What it shall not show")
    sampler: str | None = Field(None, description="A name of `python -m pipeline samplers`")
    schedule: str | None = Field(None, description="A noise schedule that the sampler takes")
    steps: int | None = Field(None, description="Sampler steps, 1 to 200")
    cfg: float | None = Field(None, description="Guidance scale, 0 to 30; 1 is no guidance")
    seed: int | None = Field(None, description="0 to 2**32 - 1; image i of a batch uses seed + i")
    width: int | None = Field(None, description="Pixels, a multiple of 8, 64 to 2048")
    height: int | None = Field(None, description="Pixels, a multiple of 8, 64 to 2048")
    count: int = Field(1, description="Pictures, 1 to 16")
    clip_skip: int | None = Field(
        None, description="Which text encoder layer from the end, 1 to 12, as A1111 counts"
    )
    cfg_rescale: float = Field(
        0.0, description="How far guidance is brought back to its unguided contrast, 0 to 1"
    )
    variation_seed: int | None = Field(
        None, description="A second seed; image i of a batch uses variation_seed + i"
    )
    variation_strength: float = Field(
        0.0, description="How far the first noise is that of variation_seed, 0 to 1"
    )
    attention: str | None = Field(None, description="A name of `python -m pipeline backends`")
    group_norm: str | None = Field(None, description="A name of `python -m pipeline backends`")

    def __init__(self, **fields: Any):
        try:
            super().__init__(**fields)
        except ValidationError as error:
            sentences = (_sentence(e, type(self).model_fields) for e in error.errors())
            raise InputError(" ".join(sentences)) from None

    @model_validator(mode="before")
    @classmethod
    def _size(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or "size" not in fields:
            return fields
        fields = dict(fields)
        size = fields.pop("size")
        if size is None:
            return fields
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise ValueError(f"size must be (width, height), not {short_repr(size)}.")
        return fields | {"width": size[0], "height": size[1]}

    @field_validator("prompt", "negative", mode="before")
    @classmethod
    def _text(cls, value: Any, info: ValidationInfo) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ValueError(f"{info.field_name} must be text, not {short_repr(value)}.")
        if len(value) > MAX_PROMPT:
            raise ValueError(
                f"{info.field_name} has {len(value):,} characters; "
                f"at most {MAX_PROMPT:,} are allowed."
            )
        if "\0" in value:
            raise ValueError(f"{info.field_name} holds a NUL character; remove it.")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(
                f"{info.field_name} holds half of a surrogate pair, which is no character; "
                "remove it."
            )
        return value

    @field_validator("sampler", mode="before")
    @classmethod
    def _sampler(cls, value: Any) -> str | None:
        if value is None:
            return None
        key = sampler_key(value) if isinstance(value, str) else None
        if key is None:
            raise ValueError(
                f"there is no sampler {short_repr(value)};"
                f" there is {closest(str(value), SAMPLERS)}."
            )
        return key

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule(cls, value: Any) -> str | None:
        if value is None:
            return None
        key = schedule_key(value) if isinstance(value, str) else None
        if key is None:
            raise ValueError(
                f"there is no schedule {short_repr(value)};"
                f" there is {closest(str(value), SCHEDULES)}."
            )
        return key

    @field_validator("attention", "group_norm", mode="before")
    @classmethod
    def _backend(cls, value: Any, info: ValidationInfo) -> str | None:
        """Check that a backend's name is a string of at most 100 characters; "" becomes None.

        Whether the backend exists and can run is checked later, when the loaded model is to draw.
        """
        if value is not None and (not isinstance(value, str) or len(value) > 100):
            raise ValueError(
                f"{info.field_name} must be a backend's name, not {short_repr(value)}."
            )
        return value or None

    @field_validator(
        *("steps", "seed", "width", "height", "count", "clip_skip", "variation_seed"),
        mode="before",
    )
    @classmethod
    def _whole(cls, value: Any, info: ValidationInfo) -> int | None:
        name = str(info.field_name)
        if value is None and name != "count":
            return None
        hint = "; leave it out for a random one" if name.endswith("seed") else ""
        number = whole_number(name, value, *LIMITS[name], hint)
        if name in ("width", "height") and number % 8:
            near = max(LIMITS[name][0], round(number / 8) * 8)
            raise ValueError(f"{name} must be a multiple of 8, not {number}; {near} would do.")
        return number

    @field_validator("cfg", "cfg_rescale", "variation_strength", mode="before")
    @classmethod
    def _real(cls, value: Any, info: ValidationInfo) -> float | None:
        name = str(info.field_name)
        if value is None:
            return None if name == "cfg" else 0.0
        return real_number(name, value, *LIMITS[name])

    @model_validator(mode="after")
    def _pair(self) -> GenerateOptions:
        if self.sampler is not None and self.schedule is not None:
            reason = check_pair(self.sampler, self.schedule)
            if reason:
                raise ValueError(reason)
        return self


class ResolvedOptions(GenerateOptions):
    """GenerateOptions whose fields are filled by Models.resolve; for type annotations only.

    `Models.resolve` returns an object of the class that it was given, so `isinstance` with this
    class is always false.
    """

    sampler: str
    schedule: str
    steps: int
    cfg: float
    seed: int
    width: int
    height: int


def whole_number(name: str, value: Any, low: float, high: float, hint: str = "") -> int:
    """Check an option: convert a number or text such as "20" to an int from `low` to `high`.

    Raises ValueError with a sentence that begins with `name` and ends with `hint`, for any other
    value.
    """
    number = _number(value)
    if number is None or number != int(number) or not low <= number <= high:
        raise ValueError(
            f"{name} must be a whole number from {low} to {high}, not {short_repr(value)}{hint}."
        )
    return int(value) if isinstance(value, int) else int(number)


def real_number(name: str, value: Any, low: float, high: float) -> float:
    """Check an option: convert a number or text such as "7.5" to a float from `low` to `high`.

    Raises ValueError with a sentence that begins with `name`, for any other value.
    """
    number = _number(value)
    if number is None or not low <= number <= high:
        raise ValueError(
            f"{name} must be a number from {low:g} to {high:g}, not {short_repr(value)}."
        )
    return float(number)


def _number(value: Any) -> float | None:
    """Return a finite number or text as a float; None for any other value, booleans included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _sentence(error: Mapping[str, Any], fields: Iterable[str]) -> str:
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][-1])
        there = closest(name, fields)
        return f"There is no option {short_repr(name)}; there is {there}."
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].upper() + message[1:]
