"""Image to image: noise is added to a picture and taken away again, as a prompt says.

SDEdit, Meng et al., arXiv 2108.01073; what strength and steps mean is as in A1111: of 20 steps at a
strength of 0.75 the last 16 are taken, and of any number at least one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from pydantic import Field

from .option_types import STRENGTH_HELP, RequiredPicture, TaskOptions, number, one_of

if TYPE_CHECKING:
    from ..events import Events
    from ..model import Models
    from ..options import ResolvedOptions

FITS = ("crop", "stretch", "pad")  # see images.open.fit_image


class Options(TaskOptions):
    """A picture to begin from, and how much of it may change."""

    picture: RequiredPicture = Field(description="The picture to begin from")
    strength: Annotated[float, number(0, 1)] = Field(0.75, description=STRENGTH_HELP)
    fit: Annotated[str, one_of(FITS)] = Field(
        "crop", description="How it comes to width and height: crop, stretch or pad"
    )


if TYPE_CHECKING:

    class Resolved(Options, ResolvedOptions):
        """Options in which the model filled every None; for type checkers."""


def stream(models: Models, options: Options, *, words: bool = False) -> Events:
    """Draw at the picture's own size where the model can, else in its shape at the model's size."""
    from .. import engine
    from ..images.open import fit_image
    from .common import resolve_size, start_from_image

    options = cast("Resolved", resolve_size(models, options, options.picture.image.size))
    image = fit_image(options.picture.image, options.width, options.height, options.fit)
    start = start_from_image(models, options, image, {"Denoising strength": options.strength})
    notes = options.picture.notes
    return engine.stream(models, options, words=words, initial_states=lambda _: start, notes=notes)
