"""InitialState: how a task tells the engine where sampling begins and what to change on the way."""

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

# Items (answers to send to the sampler, new seed of its noise after them or None), in order.
ReplayedAnswers = tuple[tuple[tuple[Answer, ...], int | None], ...]
X0Hook = Callable[[Query, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class InitialState:
    """How one picture is drawn: where sampling begins, and what is changed during and after it.

    By default it begins from noise alone, as text to image does.

    clean                 latents (1, C, h, w) to begin from, with noise of the level of
                          `start_step`; None begins from noise alone
    start_step            the number of steps to skip, from 0; used with `clean`
    x0_hook               x0_hook(query, clean) is called after each model call with the predicted
                          clean latents, and returns those to use in their place
    inpaint_conditioning  (1, 1 + C, h, w), additional input channels of an inpainting UNet
    postprocess           function that is applied to the decoded picture
    fields                additional {name: value} for the parameters text in A1111's format
    tile                  (side, overlap) of tiles in latents, for pictures larger than the UNet was
                          trained for; None: no tiles
    noise                 first noise (1, C, h, w), in place of the noise drawn from the seed
    replayed_answers      recorded model outputs that the sampler is sent first, in place of UNet
                          calls, so that it continues an earlier run: items (outputs, new seed of
                          the sampler's noise after them or None), in order
    lineage               for a branch (a picture that continues another from one of its steps):
                          the options of the first picture, then {"at": step, changed options} of
                          each branch
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
    """Change a model output so that it predicts the clean latents that `x0_hook` returns.

    Used, for example, to keep a part of the picture while another is repainted. answer: the output
    for `query` (the UNet's input). x0_hook(query, clean) gets the predicted clean latents and
    returns others; it is applied to the guided and to the unconditional output, and `cond` becomes
    None. prediction: what the model predicts, "epsilon" or "v_prediction".
    """

    def changed(output: torch.Tensor) -> torch.Tensor:
        clean = x0_hook(query, predicted_clean(query, output, prediction))
        return output_for(query, clean, prediction).to(output.dtype)

    uncond = None if answer.uncond is None else changed(answer.uncond)
    return Answer(changed(answer.output), None, uncond)


def inpaint_conditioning(
    models: Models, image: Image.Image | None, mask: Image.Image | None, size: tuple[int, int]
) -> torch.Tensor | None:
    """Return the additional input channels of an inpainting UNet, or None for any other UNet.

    They are the mask and the latents of the masked picture, (1, 1 + C, h, w). Rombach et al., arXiv
    2112.10752.

    image  the picture, RGB, of `size`
    mask   255 where the picture is to be repainted, of `size`; if image or mask is None, everything
           is repainted
    size   (width, height) in pixels
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
