"""Where a picture begins and how its way is steered: what a task hands the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..samplers.base import Answer, Query
from ..samplers.prediction import output_for, predicted_clean
from . import autoencode, vae

if TYPE_CHECKING:
    from PIL import Image

# Answers that the sampler had before, and the seed of its noise from there on, or None.
Past = tuple[tuple[tuple[Answer, ...], int | None], ...]
Steer = Callable[[Query, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Start:
    """How the engine draws one picture; by default from noise alone.

    clean   latents (1, C, h, w) to begin from, with the noise of step `begin` of all steps
    begin   the first step that is taken
    steer   steer(query, clean) gives the clean latents to believe in instead of the predicted ones
    beside  (1, 1 + C, h, w), what an inpainting UNet sees beside the latents; see `beside`
    finish  what becomes of the decoded picture
    fields  additions to the parameters text
    tile    (side, overlap) in latents: the UNet sees a larger picture piece by piece
    noise   (1, C, h, w) in place of the seed's first noise
    past    what the sampler is told first, without a call of the model: it goes on from there as if
            it had never stopped
    lineage where this is a branch: the first picture's options, then each branch's step and changes
    """

    clean: torch.Tensor | None = None
    begin: int = 0
    steer: Steer | None = None
    beside: torch.Tensor | None = None
    finish: Callable[[Image.Image], Image.Image] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    tile: tuple[int, int] | None = None
    noise: torch.Tensor | None = None
    past: Past = ()
    lineage: tuple[Mapping[str, Any], ...] = ()


def steered(answer: Answer, query: Query, prediction: str, steer: Steer) -> Answer:
    """The answer whose clean latents `steer` chose: samplers never know that they were changed."""

    def changed(output: torch.Tensor) -> torch.Tensor:
        clean = steer(query, predicted_clean(query, output, prediction))
        return output_for(query, clean, prediction).to(output.dtype)

    uncond = None if answer.uncond is None else changed(answer.uncond)
    return Answer(changed(answer.output), None, uncond)


def beside(
    models: Any, image: Image.Image | None, mask: Image.Image | None, size: tuple[int, int]
) -> torch.Tensor | None:
    """What the UNet of an inpainting checkpoint sees beside the latents; None for other UNets.

    image, mask: of `size` (width, height), 255 where it is to be repainted; None for both is a
    picture that is all to be painted. Rombach et al., arXiv 2112.10752.
    """
    if models.unet.config.in_channels != 2 * models.vae.config.latent_channels + 1:
        return None
    from ..images.masks import latent_mask
    from ..images.open import to_tensor

    factor = vae.factor(models.vae)
    width, height = size
    if image is None or mask is None:
        hole = torch.ones(1, 1, height // factor, width // factor)
        pixels = torch.full((1, 3, height, width), 0.5)
    else:
        hole = latent_mask(mask, width, height, factor)
        pixels = torch.where(to_tensor(mask)[:, :1] > 0.5, 0.5, to_tensor(image))
    return torch.cat([hole, autoencode.encode(models, pixels)], 1)
