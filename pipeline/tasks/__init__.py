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
    """A task such as inpainting: what command line, web API and page must know about it.

    label: its name for users. note: what it does, for `--help` and the web API. model_cache:
    whether it can draw with several models, and so takes a ModelCache. signs: whether its pictures
    already carry receipts (JSON in the PNG by which it can be drawn again and verified); otherwise
    they are added. uses_first_seed: whether each picture of a batch depends on the seed of the
    first. two_passes: whether the result comes from a second pass, after a first pass of all steps.
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
    """Import the file of a task and return it as a module; it has the task's Options and `stream`.

    key: such as "inpaint", a key of TASKS. Raises InputError if there is no such task.
    """
    if key not in TASKS:
        raise InputError(f"There is no task {key[:100]!r}; there is {closest(key[:100], TASKS)}.")
    return importlib.import_module(f"{__name__}.{key}")


def options(key: str, **fields: Any) -> GenerateOptions:
    """Validate the fields of a request and return them as the Options of the task `key`.

    Raises InputError with one sentence for each invalid field.
    """
    return module(key).Options(**fields)


def cost(key: str, options: Any) -> float:
    """Estimate the time that one picture of the task `key` takes, to reserve a GPU for it.

    The unit is the time of a picture of text to image of the same width and height.
    """
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
    """Run the task `key`: yield a Step after each denoising step, then a Result with pictures.

    The pictures carry receipts (JSON by which they can be drawn again and verified). options: those
    of the task, validated. model_cache: models for tasks that draw with several. words: whether the
    Steps carry attention maps of the prompt's words. Closing the iterator stops the work.
    """
    task = TASKS.get(key)
    more = {"model_cache": model_cache} if task and task.model_cache else {}
    events = module(key).stream(models, options, words=words, **more)
    if task and task.signs:
        return events
    return models.sign(events, key, options)
