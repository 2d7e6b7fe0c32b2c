"""Inpainting and outpainting: repaint the masked part of a picture, or extend it.

With any checkpoint the predicted x0 outside the mask is replaced by the picture's latents at each
step (RePaint, Lugmayr et al., arXiv 2201.09865, without its resampling). An inpainting checkpoint
also gets the mask and the masked picture as input channels. Pixels outside the mask are returned
bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BeforeValidator, Field, model_validator

from ..errors import InputError
from .option_types import STRENGTH_HELP, RequiredPicture, TaskOptions, integer, number, one_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ..events import Events
    from ..model import Models
    from ..options import ResolvedOptions
    from ..samplers.base import Query

AREAS = ("whole", "masked")
FILLS = ("original", "fill", "noise")  # see masks.fill
SIDES = ("left", "top", "right", "bottom")


def _mask(value: Any, info) -> Any:
    from ..images.masks import open_mask

    if value is None or value == "" or "picture" not in info.data:
        return None
    try:
        return open_mask(value, info.data["picture"].image.size)
    except InputError as error:
        raise ValueError(str(error)) from None


class Options(TaskOptions):
    """Fields of an inpainting request: options of text to image, a picture, and what to repaint.

    What to repaint is a mask, margins to add around the picture, or both.
    """

    picture: RequiredPicture = Field(description="The picture to repaint")
    mask: Annotated[Any, BeforeValidator(_mask)] = Field(
        None, description="A picture of the same size, white where it is to be repainted"
    )
    strength: Annotated[float, number(0, 1)] = Field(1.0, description=STRENGTH_HELP)
    area: Annotated[str, one_of(AREAS)] = Field(
        "whole", description="Draw at the size of the whole picture, or of the masked part alone"
    )
    padding: Annotated[int, integer(0, 512)] = Field(
        32, description="Pixels around the masked part that are seen with it, for area masked"
    )
    mask_blur: Annotated[int, integer(0, 256)] = Field(
        4, description="Pixels inside the mask's edge over which old and new melt"
    )
    fill: Annotated[str, one_of(FILLS)] = Field(
        "original", description="What stands under the mask at first: original, fill or noise"
    )
    left: Annotated[int, integer(0, 1024)] = Field(0, description="Pixels to paint on to the left")
    top: Annotated[int, integer(0, 1024)] = Field(0, description="Pixels to paint on above")
    right: Annotated[int, integer(0, 1024)] = Field(
        0, description="Pixels to paint on to the right"
    )
    bottom: Annotated[int, integer(0, 1024)] = Field(0, description="Pixels to paint on below")

    @model_validator(mode="after")
    def _something(self) -> Options:
        if self.mask is None and not any(self.margins):
            raise ValueError(
                "There is nothing to repaint: give a mask, or pixels to paint on at a side."
            )
        return self

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """How many pixels to add on each side of the picture: (left, top, right, bottom)."""
        return tuple(getattr(self, side) for side in SIDES)


if TYPE_CHECKING:

    class Resolved(Options, ResolvedOptions):
        """Options after Models.resolve, which replaces every None; only for type checkers."""


def work(options: Options, defaults: Mapping[str, Any]) -> float:
    """Return the pixels times UNet calls of all pictures. defaults: the model's size and steps."""
    from .common import redrawn_size, sampling_work

    if options.area == "masked":  # drawn at the size of a picture of text to image
        return options.count * sampling_work(options, defaults, strength=options.strength)
    width, height = options.picture.image.size
    left, top, right, bottom = options.margins
    size = redrawn_size(options, defaults, (width + left + right, height + top + bottom))
    return options.count * sampling_work(options, defaults, size, options.strength)


def stream(models: Models, options: Options, *, words: bool = False) -> Events:
    """Repaint the masked part and the margins of a picture: yield the Steps, then the Result.

    The result has the picture's size plus its margins, whatever size the model draws at. words:
    whether the Steps carry attention maps of the prompt's words.
    """
    from PIL.Image import Resampling

    from .. import engine
    from ..images import masks
    from ..images.open import fit_image
    from ..latents import vae
    from ..latents.autoencode import encode_picture
    from ..latents.initial_state import inpaint_conditioning
    from .common import resolve_size, start_from_image

    seed = models.resolve(options).seed
    options = options.model_copy(update={"seed": seed})
    picture, mask = options.picture.image, options.mask
    if any(options.margins):
        picture, mask = masks.extend(picture, *options.margins, mask=mask, seed=seed)
    box = (0, 0, *picture.size)
    if options.area == "masked":
        options = cast("Resolved", models.resolve(options))
        box = masks.padded_box(mask, options.padding, options.width / options.height)
    part, hole = picture.crop(box), mask.crop(box)
    options = cast("Resolved", resolve_size(models, options, part.size))
    size = options.width, options.height
    resized = fit_image(part, *size, "stretch")
    filled = fit_image(masks.fill(part, hole, options.fill, seed), *size, "stretch")
    original = encode_picture(models, resized)
    latent_mask = masks.latent_mask(hole, *size, vae.factor(models.vae))

    def x0_hook(query: Query, clean: torch.Tensor) -> torch.Tensor:
        new, old = latent_mask.to(clean), original.to(clean)
        return new * clean + (1 - new) * old

    alpha = masks.feather(hole, options.mask_blur)

    def paste_back(drawn: Image.Image) -> Image.Image:
        new = masks.composite(part, fit_image(drawn, part.width, part.height, "stretch"), alpha)
        result = picture.copy()
        result.paste(new, box[:2])
        return result

    fields = {
        "Denoising strength": options.strength,
        "Mask blur": options.mask_blur,
        "Masked content": options.fill,
        "Inpaint area": "Only masked" if options.area == "masked" else None,
        "Masked area padding": options.padding if options.area == "masked" else None,
        "Outpaint": ", ".join(map(str, options.margins)) if any(options.margins) else None,
    }
    start = start_from_image(
        models,
        options,
        filled,
        fields,
        x0_hook=x0_hook,
        postprocess=paste_back,
        inpaint_conditioning=inpaint_conditioning(
            models, resized, hole.resize(size, Resampling.NEAREST), size
        ),
    )
    notes = options.picture.notes
    return engine.stream(models, options, words=words, initial_states=lambda _: start, notes=notes)
