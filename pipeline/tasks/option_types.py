"""What the fields of tasks are made of: a picture, a share, a number of pixels, a choice.

    strength: Annotated[float, number(0, 1)] = Field(0.75, description="...")

Each turns what a person gave into the value, or says in one sentence what would be right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ..errors import InputError, closest, short_repr
from ..options import GenerateOptions, real_number, whole_number


class TaskOptions(GenerateOptions):
    """GenerateOptions and a task's own fields, where None means a field's default."""

    @model_validator(mode="before")
    @classmethod
    def _left_out(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {k: v for k, v in fields.items() if v is not None}


def number(low: float, high: float) -> BeforeValidator:
    """A number from `low` to `high`."""
    return BeforeValidator(lambda value, info: real_number(info.field_name, value, low, high))


def integer(low: int, high: int) -> BeforeValidator:
    """A whole number from `low` to `high`."""
    return BeforeValidator(lambda value, info: whole_number(info.field_name, value, low, high))


def one_of(names: Iterable[str]) -> BeforeValidator:
    """One of `names`."""
    names = tuple(names)

    def check(value: Any, info) -> str:
        if value not in names:
            raise ValueError(
                f"{info.field_name} must be one of {closest(str(value)[:100], names)},"
                f" not {short_repr(value)}."
            )
        return value

    return BeforeValidator(check)


def boolean() -> BeforeValidator:
    """Yes or no, also as text."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

    def check(value: Any, info) -> bool:
        known = words.get(str(value).lower())
        if known is None:
            raise ValueError(f"{info.field_name} must be true or false, not {short_repr(value)}.")
        return known

    return BeforeValidator(check)


def _picture(value: Any, info) -> Any:
    from ..images.open import open_picture

    if value is None or value == "":
        raise ValueError(f"There is no {info.field_name}: give a picture file.")
    try:
        return open_picture(value, f"The {info.field_name}")
    except InputError as error:
        raise ValueError(str(error)) from None


# A picture that must be given; in Options a pictures.Picture.
RequiredPicture = Annotated[
    Any, BeforeValidator(_picture), Field(default=None, validate_default=True)
]
STRENGTH_HELP = "How much is drawn anew, 0 to 1: 0 keeps the picture, 1 all but forgets it"
