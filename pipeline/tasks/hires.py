"""High-resolution fix: a picture is drawn at the size that the model knows, enlarged, and drawn
anew from the middle of the way at the larger size. After A1111's of that name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .common import WAYS
from .option_types import TaskOptions, one_of, real, whole


class Options(TaskOptions):
    """Text to image, and how the picture is enlarged."""

    scale: Annotated[float, real(1, 4)] = Field(2.0, description="How many times larger, 1 to 4")
    upscaler: Annotated[str, one_of(WAYS)] = Field(
        "glass", description=f"What enlarges the first picture: {', '.join(WAYS)}"
    )
    strength: Annotated[float, real(0, 1)] = Field(
        0.25, description="How much is drawn anew at the larger size, 0 to 1"
    )
    refine_steps: Annotated[int, whole(0, 200)] = Field(
        0, description="Steps of the second pass; 0: as many as of the first"
    )


def stream(models, options: Options, *, words: bool = False):
    """Each picture small, then large, from the same seed."""
    from .common import each

    chosen = options.schedule
    resolved = models.resolve(options)
    return each(resolved, lambda single: _one(models, single, chosen, words))


def _one(models, options: Options, chosen: str | None, words: bool):
    from .. import engine, samplers
    from ..samplers import SCHEDULES
    from .common import gentle, larger, numbered, refined

    size = larger(models, (options.width, options.height), options.scale)
    fine = options.model_copy(
        update={
            "steps": options.refine_steps or options.steps,
            "width": size[0],
            "height": size[1],
            "schedule": chosen or gentle(options.sampler),
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
    first = yield from numbered(engine.stream(models, options, words=words), 0, total)
    start = refined(models, fine, first, fields)
    second = engine.stream(models, fine, words=words, initial_states=lambda _: start)
    return (yield from numbered(second, options.steps, total, first.seconds))
