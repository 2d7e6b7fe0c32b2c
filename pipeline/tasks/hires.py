"""High-resolution fix, as in A1111: draw a picture, enlarge it, and draw its details.

The second pass is image to image at the larger size, so the composition stays that of the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from .common import ENLARGERS
from .option_types import TaskOptions, integer, number, one_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..events import Events, Result, Step
    from ..model import Models
    from ..options import ResolvedOptions


class Options(TaskOptions):
    """Fields of a high-resolution request: the options of text to image, and of the second pass."""

    scale: Annotated[float, number(1, 4)] = Field(2.0, description="How many times larger, 1 to 4")
    upscaler: Annotated[str, one_of(ENLARGERS)] = Field(
        "glass", description=f"What enlarges the first picture: {', '.join(ENLARGERS)}"
    )
    strength: Annotated[float, number(0, 1)] = Field(
        0.25, description="How much is drawn anew at the larger size, 0 to 1"
    )
    refine_steps: Annotated[int, integer(0, 200)] = Field(
        0, description="Steps of the second pass; 0: as many as of the first"
    )


if TYPE_CHECKING:

    class Resolved(Options, ResolvedOptions):
        """Options after Models.resolve, which replaces every None; only for type checkers."""


def work(options: Options, defaults: Mapping[str, Any]) -> float:
    """Return the pixels times UNet calls of both passes of all pictures. defaults: the model's."""
    from .common import sampling_work

    width, height = options.width or defaults["width"], options.height or defaults["height"]
    large = round(width * options.scale), round(height * options.scale)
    fine = options.model_copy(update={"steps": options.refine_steps or options.steps})
    first = sampling_work(options, defaults)
    return options.count * (first + sampling_work(fine, defaults, large, options.strength))


def stream(models: Models, options: Options, *, words: bool = False) -> Events:
    """Draw each picture, enlarge it and draw its details: yield the Steps, then the Result.

    Both passes of a picture use the same seed, and their Steps are numbered consecutively. words:
    whether the Steps carry attention maps of the prompt's words.
    """
    from .common import for_each_image

    chosen = options.schedule
    resolved = models.resolve(options)
    return for_each_image(resolved, lambda one: _draw_twice(models, one, chosen, words))


def _draw_twice(
    models: Models, options: Resolved, chosen: str | None, words: bool
) -> Generator[Step, None, Result]:
    from .. import engine, samplers
    from ..samplers import SCHEDULES
    from .common import detail_schedule, renumber, scaled_size, second_pass

    size = scaled_size(models, (options.width, options.height), options.scale)
    fine = options.model_copy(
        update={
            "steps": options.refine_steps or options.steps,
            "width": size[0],
            "height": size[1],
            "schedule": chosen or detail_schedule(options.sampler),
        }
    )
    fields = {
        "Steps": options.steps,
        "Size": f"{options.width}x{options.height}",
        "Denoising strength": options.strength,
        "Hires upscale": options.scale,
        "Hires upscaler": options.upscaler,
        "Hires steps": options.refine_steps or None,
        "Hires schedule type": SCHEDULES[fine.schedule].label,
    }
    total = options.steps + fine.steps - samplers.start_step_for(fine.strength, fine.steps)
    first = yield from renumber(engine.stream(models, options, words=words), 0, total)
    start = second_pass(models, fine, first, fields)
    second = engine.stream(models, fine, words=words, initial_states=lambda _: start)
    return (yield from renumber(second, options.steps, total, first.seconds))
