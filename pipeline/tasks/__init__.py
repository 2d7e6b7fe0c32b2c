"""Tasks such as inpainting: each is one file of this folder and one row of TASKS.

A task's file has
    Options   a pydantic model: the fields of a request, with their limits and help
    stream    stream(models, options, *, words) yields the engine's Steps, then its Result
    work      optional: work(options, defaults) returns the pixels times model calls of a request; a
              task without it takes those of text to image
Command line, web API and page read TASKS and the fields of Options, so neither this module nor the
module level of a task's file imports torch or other large packages.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
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


def work(key: str, options: Any, defaults: Mapping[str, Any] | None = None) -> float:
    """Return how much a request of the task `key` draws, in pixels times calls of the UNet.

    It is summed over all pictures, passes, tiles and steps, each step with as many calls as its
    sampler makes, and is at least what the request really takes. A picture of 512x512 in 20 steps
    of Euler is 512 * 512 * 20 = 5,242,880. Limits on requests and the seconds that are reserved on
    a GPU are counted with it.
    options: those of the task, validated. defaults: the model's width, height, steps and sampler,
    for options that are None; None: those of Stable Diffusion 1.5.
    """
    from .common import USUAL, sampling_work

    defaults = USUAL if defaults is None else defaults
    own = getattr(module(key), "work", None)
    if own is not None:
        return float(own(options, defaults))
    return options.count * sampling_work(options, defaults)


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
