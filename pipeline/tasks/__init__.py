"""Tasks: what can be asked for, each one file and one line of TASKS.

A task's file has `Options`, what is asked for, and `stream(models, options, *, words)`, which
yields the engine's Step events and at last its Result. Command line, web API and page are made from
TASKS and the fields of Options, so nothing heavy is imported here, nor where Options are defined.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, closest

if TYPE_CHECKING:
    from ..events import Result, Step
    from ..options import GenerateOptions


@dataclass(frozen=True)
class Task:
    """A line of TASKS: its name for people, what it does, and whether `stream` gets the model cache
    of models, too, because one picture may be drawn by several."""

    label: str
    note: str
    model_cache: bool = False


TASKS: dict[str, Task] = {
    "generate": Task("Text to image", "draw a picture from a prompt"),
    "image_to_image": Task("Image to image", "draw a picture anew, as a prompt says"),
    "inpaint": Task("Inpaint", "repaint a part of a picture, or paint on beyond its edges"),
    "hires": Task("High-resolution fix", "draw a picture, enlarge it and draw its details"),
    "upscale": Task("Enlarge", "enlarge a picture, its details drawn tile by tile"),
    "colorize": Task("Colorize", "colour a grey picture as a prompt says"),
    "grid": Task("Grid", "one picture for each value of two or three options", model_cache=True),
}

DRAW = ("generate", "grid")  # by models.stream, which gives pictures their receipts itself


def module(key: str) -> Any:
    """The file of the task `key`."""
    if key not in TASKS:
        raise InputError(f"There is no task {key[:100]!r}; there is {closest(key[:100], TASKS)}.")
    return importlib.import_module(f"{__name__}.{key}")


def options(key: str, **fields: Any) -> GenerateOptions:
    """What is asked for, checked; InputError in one sentence for each field that is wrong."""
    return module(key).Options(**fields)


def stream(
    models, key: str, asked: GenerateOptions, model_cache=None, *, words: bool = False
) -> Iterator[Step | Result]:
    """Step events, then the Result; closing the iterator stops the work.

    asked: of `options`. model_cache: where a task that draws with several models finds them. words:
    whether the Steps tell where words went, see engine.stream.
    """
    if key in DRAW:
        more = {"model_cache": model_cache} if TASKS[key].model_cache else {}
        return module(key).stream(models, asked, words=words, **more)
    from ..metadata import receipt

    return receipt.signed(models, module(key).stream(models, asked, words=words), key, asked)
