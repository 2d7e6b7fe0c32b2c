"""Image to image: noise is added to a picture and taken away again, as a prompt says.

SDEdit, Meng et al., arXiv 2108.01073; what strength and steps mean is as in A1111: of 20 steps at a
strength of 0.75 the last 16 are taken, and of any number at least one.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .option_types import STRENGTH, Given, TaskOptions, one_of, real

FITS = ("crop", "stretch", "pad")  # see pictures.fitted


class Options(TaskOptions):
    """A picture to begin from, and how much of it may change."""

    picture: Given = Field(description="The picture to begin from")
    strength: Annotated[float, real(0, 1)] = Field(0.75, description=STRENGTH)
    fit: Annotated[str, one_of(FITS)] = Field(
        "crop", description="How it comes to width and height: crop, stretch or pad"
    )


def stream(models, options: Options, *, words: bool = False):
    """The picture's own size where the model can work at it, else its shape at the model's size."""
    from .. import engine
    from ..images.open import fitted
    from .common import begin, sized

    options = sized(models, options, options.picture.image.size)
    image = fitted(options.picture.image, options.width, options.height, options.fit)
    start = begin(models, options, image, {"Denoising strength": options.strength})
    notes = options.picture.notes
    return engine.stream(models, options, words=words, initial_states=lambda _: start, notes=notes)
