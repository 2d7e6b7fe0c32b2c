"""Pydantic validators for fields of a task's Options: numbers, choices, booleans, pictures.

    strength: Annotated[float, number(0, 1)] = Field(0.75, description="...")

A validator converts the given value, which may be text from the command line, or raises ValueError
with one sentence that says what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ..errors import InputError, closest, short_repr
from ..options import GenerateOptions, real_number, whole_number


class TaskOptions(GenerateOptions):
    """Base class of each task's Options: the options of text to image, to which a task adds fields.

    A field given as None takes its default.
    """

    @model_validator(mode="before")
    @classmethod
    def _drop_none(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {k: v for k, v in fields.items() if v is not None}


def number(low: float, high: float) -> BeforeValidator:
    """Return a pydantic validator that converts a value to a float from `low` to `high`."""
    return BeforeValidator(lambda value, info: real_number(info.field_name, value, low, high))


def integer(low: int, high: int) -> BeforeValidator:
    """Return a pydantic validator that converts a value to an int from `low` to `high`."""
    return BeforeValidator(lambda value, info: whole_number(info.field_name, value, low, high))


def one_of(names: Iterable[str]) -> BeforeValidator:
    """Return a pydantic validator that accepts only one of the strings `names`."""
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
    """Return a pydantic validator that converts a value to a bool.

    As text it may be true, false, yes, no, 1 or 0.
    """
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


# A picture that must be given: a path or a PIL image, converted to an images.open.Picture.
RequiredPicture = Annotated[
    Any, BeforeValidator(_picture), Field(default=None, validate_default=True)
]
STRENGTH_HELP = "How much is drawn anew, 0 to 1: 0 keeps the picture, 1 all but forgets it"
