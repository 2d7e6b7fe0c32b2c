"""Enlarge a picture with an upscaler, then draw its details with image to image, tile by tile.

The tiles overlap and are blended at each step (see denoising/tiles.py), so there are no seams, and
the UNet needs no more memory than for one tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from .common import PIXELS
from .option_types import RequiredPicture, TaskOptions, boolean, integer, number, one_of

if TYPE_CHECKING:
    from ..events import Events
    from ..model import Models
    from ..options import ResolvedOptions


class Options(TaskOptions):
    """Fields of a request to enlarge a picture: those of text to image, the picture, and how."""

    picture: RequiredPicture = Field(description="The picture to enlarge")
    scale: Annotated[float, number(1, 8)] = Field(2.0, description="How many times larger, 1 to 8")
    upscaler: Annotated[str, one_of(PIXELS)] = Field(
        "glass", description=f"What enlarges the pixels: {', '.join(PIXELS)}"
    )
    redraw: Annotated[bool, boolean()] = Field(
        True, description="Whether the model draws the details, tile by tile"
    )
    strength: Annotated[float, number(0, 1)] = Field(
        0.1, description="How much is drawn anew, 0 to 1"
    )
    tile: Annotated[int, integer(0, 2048)] = Field(
        0, description="Pixels of a tile's side; 0: twice the size that the model knows, up to 768"
    )
    overlap: Annotated[int, integer(0, 1024)] = Field(
        0, description="Pixels that tiles share; 0: half a tile"
    )


if TYPE_CHECKING:

    class Resolved(Options, ResolvedOptions):
        """Options after Models.resolve, which replaces every None; only for type checkers."""


def work(options: Options, defaults: Mapping[str, Any]) -> float:
    """Return the pixels times UNet calls of all pictures, each tile at each step by itself.

    Without `redraw` the UNet is not called; the upscaler's pass then counts as one call for the
    enlarged picture. defaults: the model's width, height, steps and sampler.
    """
    from ..denoising.tiles import tile_starts
    from .common import sampling_work, tiling

    sides = [max(64, round(side * options.scale)) for side in options.picture.image.size]
    if not options.redraw:
        return float(options.count * sides[0] * sides[1])
    tile, overlap = tiling(defaults, options)
    # Of each direction: the pixels of all tiles together, which overlap.
    covered = [
        len(tile_starts(side // 8, tile, overlap)) * 8 * min(side // 8, tile) for side in sides
    ]
    size = covered[0], covered[1]
    return options.count * sampling_work(options, defaults, size, options.strength)


def stream(models: Models, options: Options, *, words: bool = False) -> Events:
    """Enlarge a picture `scale` times: yield a Step for each denoising step, then the Result.

    With `redraw` the model draws the details, tile by tile; without it there are no Steps and the
    Result is the upscaler's picture. words: whether the Steps carry attention maps of the prompt's
    words.
    """
    from .. import engine
    from ..images.open import fit_image
    from ..images.upscaler import UPSCALERS
    from .common import detail_schedule, resolve_tiling, scaled_size, start_from_image

    image = options.picture.image
    full_width, full_height = (round(side * options.scale) for side in image.size)
    width, height = scaled_size(models, image.size, options.scale)
    sampler = options.sampler or models.defaults["sampler"]
    update = {
        "width": width,
        "height": height,
        "sampler": sampler,
        "schedule": options.schedule or detail_schedule(sampler),
    }
    options = cast("Resolved", models.resolve(options.model_copy(update=update)))
    upscaler = UPSCALERS[options.upscaler]
    big = upscaler.enlarge(image, full_width, full_height, device=models.device)
    fields = {
        "Denoising strength": options.strength if options.redraw else None,
        "Upscale": options.scale,
        "Upscaler": options.upscaler,
    }
    if not options.redraw:
        return engine.finish_without_drawing(models, options, big, fields)
    tile = resolve_tiling(models, options)
    start = start_from_image(
        models,
        options,
        fit_image(big, width, height, "stretch"),
        fields,
        tile=tile,
        postprocess=lambda drawn: fit_image(drawn, full_width, full_height, "stretch"),
    )
    notes = options.picture.notes
    return engine.stream(models, options, words=words, initial_states=lambda _: start, notes=notes)
