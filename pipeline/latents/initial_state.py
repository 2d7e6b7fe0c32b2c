"""How a task sets up the engine: where sampling begins, and hooks on the way."""

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

    from ..model import Models

# For each stretch of the sampling: answers to send to the sampler, then a new seed of its noise.
ReplayedAnswers = tuple[tuple[tuple[Answer, ...], int | None], ...]
X0Hook = Callable[[Query, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class InitialState:
    """How the engine draws one picture; by default from noise alone.

    clean                 latents (1, C, h, w) to begin from, with the noise of step `start_step`
    start_step            the first of all steps that is taken
    x0_hook               x0_hook(query, clean) returns the clean latents to use instead of the
                          predicted ones
    inpaint_conditioning  (1, 1 + C, h, w), further input channels of an inpainting UNet
    postprocess           applied to the decoded picture
    fields                additions to the parameters text
    tile                  (side, overlap) in latents: the UNet runs on tiles of a larger picture
    noise                 (1, C, h, w) in place of the seed's first noise
    replayed_answers      answers that the sampler is sent first, without a call of the UNet, so
                          that it continues an earlier run
    lineage               of a branch: the first picture's options, then each branch's step and
                          changes
    """

    clean: torch.Tensor | None = None
    start_step: int = 0
    x0_hook: X0Hook | None = None
    inpaint_conditioning: torch.Tensor | None = None
    postprocess: Callable[[Image.Image], Image.Image] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    tile: tuple[int, int] | None = None
    noise: torch.Tensor | None = None
    replayed_answers: ReplayedAnswers = ()
    lineage: tuple[Mapping[str, Any], ...] = ()


def apply_x0_hook(answer: Answer, query: Query, prediction: str, x0_hook: X0Hook) -> Answer:
    """Return the answer whose predicted clean latents are those that `x0_hook` returns."""

    def changed(output: torch.Tensor) -> torch.Tensor:
        clean = x0_hook(query, predicted_clean(query, output, prediction))
        return output_for(query, clean, prediction).to(output.dtype)

    uncond = None if answer.uncond is None else changed(answer.uncond)
    return Answer(changed(answer.output), None, uncond)


def inpaint_conditioning(
    models: Models, image: Image.Image | None, mask: Image.Image | None, size: tuple[int, int]
) -> torch.Tensor | None:
    """Return the further input channels (1, 1 + C, h, w) of an inpainting checkpoint's UNet: the
    mask and the masked picture's latents. None for other UNets.

    image, mask: of `size` (width, height), the mask 255 where the picture is repainted; None for
    both repaints everything. Rombach et al., arXiv 2112.10752.
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
