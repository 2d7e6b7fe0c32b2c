"""Tasks such as inpainting: each is one file of this folder and one row of TASKS.

A task's file has
    Options   a pydantic model: the fields of a request, with their limits and help
    stream    stream(models, options, *, words) yields the engine's Steps, then its Result
    cost      optional: cost(options) returns what one picture costs; text to image costs 1
Command line, web API and page read TASKS and the fields of Options, so neither this module nor the
module level of a task's file imports torch or other large packages.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, closest

if TYPE_CHECKING:
    from ..events import Events
    from ..model import Models
    from ..model_cache import ModelCache
    from ..options import GenerateOptions


@dataclass(frozen=True)
class Task:
    """A row of TASKS: properties of a task that command line, web API and page must know.

    label: its name for users. note: what it does, for `--help` and the web API. model_cache:
    whether its `stream` also takes the ModelCache, to draw with several models. signs: whether its
    pictures already carry receipts (metadata/receipt.py), as those of `Models.stream` do.
    uses_first_seed: whether each picture of a batch depends on the seed of the first. two_passes:
    whether the result comes from a second pass, after a first pass of all steps.
    """

    label: str
    note: str
    model_cache: bool = False
    signs: bool = False
    uses_first_seed: bool = False
    two_passes: bool = False


TASKS: dict[str, Task] = {
    "generate": Task("Text to image", "draw a picture from a prompt", signs=True),
    "image_to_image": Task("Image to image", "draw a picture anew, as a prompt says"),
    "inpaint": Task(
        "Inpaint",
        "repaint a part of a picture, or paint on beyond its edges",
        uses_first_seed=True,  # for what stands under the mask at first
    ),
    "hires": Task(
        "High-resolution fix", "draw a picture, enlarge it and draw its details", two_passes=True
    ),
    "upscale": Task("Enlarge", "enlarge a picture, its details drawn tile by tile"),
    "colorize": Task("Colorize", "colour a grey picture as a prompt says"),
    "grid": Task(
        "Grid", "one picture for each value of two or three options", model_cache=True, signs=True
    ),
}


def module(key: str) -> Any:
    """Import and return the module of a task; InputError if there is no such task.

    key: a key of TASKS, such as "inpaint".
    """
    if key not in TASKS:
        raise InputError(f"There is no task {key[:100]!r}; there is {closest(key[:100], TASKS)}.")
    return importlib.import_module(f"{__name__}.{key}")


def options(key: str, **fields: Any) -> GenerateOptions:
    """Return the Options of the task `key` with these fields.

    Raises InputError with one sentence for each invalid field.
    """
    return module(key).Options(**fields)


def cost(key: str, options: Any) -> float:
    """Return the cost of one picture of the task `key`; 1 is one of text to image at that size."""
    cost = getattr(module(key), "cost", None)
    return 1.0 if cost is None else float(cost(options))


def stream(
    models: Models,
    key: str,
    options: GenerateOptions,
    model_cache: ModelCache | None = None,
    *,
    words: bool = False,
) -> Events:
    """Run the task `key`: yield its Steps, then its Result, whose pictures carry receipts.

    options: what the function `options` returns. model_cache: models for tasks that use several.
    words: whether the Steps carry attention maps of the prompt's words. Closing the iterator stops
    the work.
    """
    task = TASKS.get(key)
    more = {"model_cache": model_cache} if task and task.model_cache else {}
    events = module(key).stream(models, options, words=words, **more)
    if task and task.signs:
        return events
    return models.sign(events, key, options)
