"""Denoiser: the UNet with classifier-free guidance, which answers the queries of a sampler.

Classifier-free guidance: Ho and Salimans, arXiv 2207.12598. The batch of a UNet call is
[unconditional, conditional] of a single image, so that an image does not depend on the other images
that are drawn at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from ..latents import vae
from ..samplers.base import Answer, Query
from . import tiles

if TYPE_CHECKING:
    from ..model import Models
    from ..prompt.encode import Conditioning

AddedCond = dict[str, dict[str, torch.Tensor]]
AttentionHook = Callable[[torch.Tensor], None]


class Denoiser:
    """The UNet with guidance for one request: called with a sampler's Query, it returns an Answer.

    The Query has the noisy latents and the timestep, the Answer the guided output.

    positive, negative    the encoded prompts, which may change from step to step
    cfg                   guidance scale; 1 means no guidance: only the prompt is used
    rescale               how far the guided output gets the conditional one's standard deviation,
                          0 to 1
    width, height         size of the picture in pixels
    inpaint_conditioning  (1, 1 + C, h, w): additional input channels of an inpainting UNet
    tile                  (side, overlap), in latents, of the overlapping tiles in which the UNet is
                          applied to large latents; None: no tiles
    guided                whether guidance is used (cfg is not 1)
    batched_cfg           whether the unconditional and the conditional output are computed in one
                          UNet call; two calls need less memory and may differ in the last bits
    """

    def __init__(
        self,
        models: Models,
        positive: Conditioning,
        negative: Conditioning,
        *,
        cfg: float,
        rescale: float = 0.0,
        width: int,
        height: int,
        inpaint_conditioning: torch.Tensor | None = None,
        tile: tuple[int, int] | None = None,
    ):
        self.unet, self.device, self.dtype = models.unet, models.device, models.dtype
        self.processor = models.backends.processor
        self.cfg, self.rescale = cfg, rescale
        if tile:
            side = tile[0] * vae.factor(models.vae)
            width, height = min(width, side), min(height, side)
        self.size = width, height  # pixels of one UNet call, for SD XL's size conditioning
        self.inpaint_conditioning, self.tile = inpaint_conditioning, tile
        self.guided, self.batched_cfg = cfg != 1.0, True
        self.positive, self.negative = positive, negative
        # Cache of `_conditioning`: the last contexts, and their copies on the device.
        self._contexts: list[torch.Tensor] = []
        self._on_device: tuple[torch.Tensor, AddedCond] | None = None

    @torch.no_grad()
    def __call__(self, query: Query, attention_hook: AttentionHook | None = None) -> Answer:
        """Call the UNet for a sampler's query; return its output after guidance.

        The output has the shape, device and dtype of query.x. attention_hook: called with the
        attention probabilities (B, Tq, Tk), averaged over the heads, of every cross attention
        layer. Raises InputError if the output is not finite.
        """
        x = query.x
        if self.inpaint_conditioning is not None:
            x = torch.cat([x, self.inpaint_conditioning.to(x)], 1)
        x = x.to(self.device, self.dtype)
        t = torch.as_tensor(query.t, device=x.device)
        context, added = self._conditioning(query.step)  # (B, K, E), B is 1 or 2
        if self.batched_cfg:
            batch = x.expand(len(context), *x.shape[1:])
            out = self._call_unet(batch, t, context, added, attention_hook)
        else:
            last = len(context) - 1  # the conditional call, the only one whose maps are needed
            halves = [
                self._call_unet(
                    x, t, context[i : i + 1], _row(added, i), attention_hook if i == last else None
                )
                for i in range(len(context))
            ]
            out = torch.cat(halves)
        out = out.to(query.x.device, query.x.dtype)
        if not torch.isfinite(out).all():
            raise InputError(
                f"The model returned values that are not finite at step {query.step + 1}; "
                "load it with dtype fp32, or lower the guidance."
            )
        if not self.guided:
            return Answer(out, out, None)
        uncond, cond = out.chunk(2)
        guided = uncond + self.cfg * (cond - uncond)
        if self.rescale:
            guided = rescale_cfg(guided, cond, self.rescale)
        return Answer(guided, cond, uncond)

    def _call_unet(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        added: AddedCond,
        attention_hook: AttentionHook | None,
    ) -> torch.Tensor:
        def unet(x: torch.Tensor) -> torch.Tensor:
            return self.unet(x, t, encoder_hidden_states=context, return_dict=False, **added)[0]

        self.processor.attention_hook = attention_hook
        try:
            return unet(x) if self.tile is None else tiles.apply_tiled(unet, x, *self.tile)
        finally:
            self.processor.attention_hook = None

    def _conditioning(self, step: int) -> tuple[torch.Tensor, AddedCond]:
        """Return the UNet's inputs besides latents and timestep: text context and SD XL's sizes.

        step: index of the sampling step, from 0. The text context is (B, K, E), where B is 2 with
        guidance (unconditional, conditional), else 1; the second item has the keyword arguments for
        SD XL, {} for other models. All are on the device.
        """
        sides = (self.negative, self.positive) if self.guided else (self.positive,)
        contexts = [side.at(step)[0] for side in sides]
        same = len(contexts) == len(self._contexts) and all(
            a is b for a, b in zip(self._contexts, contexts, strict=True)
        )
        if self._on_device is None or not same:
            context = torch.cat(contexts).to(self.device, self.dtype)
            pooled = [p for side in sides if (p := side.at(step)[1]) is not None]
            added = added_cond_kwargs(
                torch.cat(pooled) if pooled else None, *self.size, self.device, self.dtype
            )
            self._contexts, self._on_device = contexts, (context, added)
        return self._on_device


def added_cond_kwargs(
    pooled: torch.Tensor | None, width: int, height: int, device: torch.device, dtype: torch.dtype
) -> AddedCond:
    """Return the UNet's keyword arguments for SD XL's additional conditioning.

    pooled: the pooled text embedding (B, P), or None for other models, which get {}. width, height:
    size of the picture in pixels. The size conditioning (original size, crop offset, target size;
    height first) is that of a picture that was neither scaled nor cropped. Podell et al., arXiv
    2307.01952.
    """
    if pooled is None:
        return {}
    sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype, device=device)
    added = {"text_embeds": pooled.to(device, dtype), "time_ids": sizes.repeat(len(pooled), 1)}
    return {"added_cond_kwargs": added}


def rescale_cfg(guided: torch.Tensor, cond: torch.Tensor, share: float) -> torch.Tensor:
    """Rescale the guided output to the standard deviation of the conditional one, per image.

    This reduces the overexposure of strong guidance: Lin et al., arXiv 2305.08891, section 3.4.
    guided, cond: (B, C, h, w). share: weight of the rescaled output, 0 to 1; 0 changes nothing.
    """
    dims = list(range(1, guided.ndim))
    factor = cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return share * (guided * factor) + (1 - share) * guided


def _row(added: AddedCond, i: int) -> AddedCond:
    return {k: {name: v[i : i + 1] for name, v in tensors.items()} for k, tensors in added.items()}
