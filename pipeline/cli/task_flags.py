"""Command-line flags of a task, one for each field of its Options.

`key` is a key of TASKS, such as "image_to_image".
"""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import InputError
from ..tasks import module

POSITIONAL = ("picture", "prompt")  # arguments without a flag
SIZE_HELP = "WIDTHxHEIGHT in pixels, multiples of 8; default: what suits the model"


def add(parser: argparse.ArgumentParser, key: str) -> None:
    """Add the flags of a task to `parser`, one for each field of its Options.

    key: of the task, such as "inpaint". The picture, if the task takes one, and the prompt are
    positional. Values stay text, or None if not given: the task's Options convert and check them.
    """
    fields = module(key).Options.model_fields
    takes_picture = "picture" in fields
    if takes_picture:
        parser.add_argument("picture", help=fields["picture"].description)
    prompt = parser.add_argument("prompt", help=fields["prompt"].description)
    if takes_picture:
        prompt.nargs, prompt.default, prompt.required = "?", "", False
    for name, field in fields.items():
        if name in (*POSITIONAL, "height"):
            continue
        if name == "width":
            parser.add_argument("--size", help=SIZE_HELP)
            continue
        text = (field.description or "").replace("%", "%%")
        flag = f"--{name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            parser.add_argument(flag, help=text)


def fields(args: argparse.Namespace, key: str) -> dict[str, Any]:
    """Return the fields of a task's Options that were given on the command line, by name.

    key: of the task, such as "inpaint".
    """
    given = {name: getattr(args, name, None) for name in module(key).Options.model_fields}
    given["width"], given["height"] = size(args.size)
    return {name: value for name, value in given.items() if value is not None}


def size(text: str | None) -> tuple[str | None, str | None]:
    """Split the value of --size, WIDTHxHEIGHT, into two texts; None gives (None, None).

    Raises InputError if there is no x. The numbers are not checked here.
    """
    if text is None:
        return None, None
    width, cross, height = text.lower().partition("x")
    if not cross:
        raise InputError(f"Size must be WIDTHxHEIGHT such as 128x128, not {text!r}.")
    return width, height
