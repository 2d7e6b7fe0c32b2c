"""Image to image: add noise to a picture and denoise it with a prompt.

SDEdit, Meng et al., arXiv 2108.01073. Strength and steps mean the same as in A1111: of 20 steps at
a strength of 0.75 the last 16 run, and always at least one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from .option_types import STRENGTH_HELP, RequiredPicture, TaskOptions, number, one_of

if TYPE_CHECKING:
    from ..events import Events
    from ..model import Models
    from ..options import ResolvedOptions

FITS = ("crop", "stretch", "pad")  # see images.open.fit_image


class Options(TaskOptions):
    """Fields of an image-to-image request: the options of text to image, and the given picture."""

    picture: RequiredPicture = Field(description="The picture to begin from")
    strength: Annotated[float, number(0, 1)] = Field(0.75, description=STRENGTH_HELP)
    fit: Annotated[str, one_of(FITS)] = Field(
        "crop", description="How it comes to width and height: crop, stretch or pad"
    )


if TYPE_CHECKING:

    class Resolved(Options, ResolvedOptions):
        """Options after Models.resolve, which replaces every None; only for type checkers."""


def work(options: Options, defaults: Mapping[str, Any]) -> float:
    """Return the pixels times UNet calls of all pictures. defaults: the model's size and steps."""
    from .common import redrawn_size, sampling_work

    size = redrawn_size(options, defaults, options.picture.image.size)
    return options.count * sampling_work(options, defaults, size, options.strength)


def stream(models: Models, options: Options, *, words: bool = False) -> Events:
    """Draw a picture anew as the prompt says: yield a Step per denoising step, then the Result.

    It is drawn at the options' width and height; where these are missing, at a size of its aspect
    ratio near the model's training size. words: whether the Steps carry attention maps of the
    prompt's words.
    """
    from .. import engine
    from ..images.open import fit_image
    from .common import resolve_size, start_from_image

    options = cast("Resolved", resolve_size(models, options, options.picture.image.size))
    image = fit_image(options.picture.image, options.width, options.height, options.fit)
    start = start_from_image(models, options, image, {"Denoising strength": options.strength})
    notes = options.picture.notes
    return engine.stream(models, options, words=words, initial_states=lambda _: start, notes=notes)
