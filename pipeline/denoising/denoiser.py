"""The UNet with classifier-free guidance: answers a sampler's query.

Each call is [unconditional, conditional] of one image, so its pixels do not depend on what else
is being drawn (Ho and Salimans, arXiv 2207.12598).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from ..latents import vae
from ..samplers.base import Answer, Query
from . import tiles

if TYPE_CHECKING:
    from ..prompt.encode import Conditioning


class Denoiser:
    """The denoiser of one request, for pictures of `width` x `height` pixels.

    models: their UNet, device, type and attention processor are used. positive, negative: what the
    UNet hears at each step. cfg: guidance scale, 1 is none; rescale: see `rescaled`.
    beside (1, 1 + C, h, w): what an inpainting UNet sees beside the latents. tile: (side, overlap)
    in latents, see tiles.py; None: all at once. `together`: both halves of guidance in one call;
    two calls need less memory, and may differ in the last bits.
    """

    def __init__(
        self,
        models: Any,
        positive: Conditioning,
        negative: Conditioning,
        *,
        cfg: float,
        rescale: float = 0.0,
        width: int,
        height: int,
        beside: torch.Tensor | None = None,
        tile: tuple[int, int] | None = None,
    ):
        self.unet, self.device, self.dtype = models.unet, models.device, models.dtype
        self.processor = models.backends.processor
        self.cfg, self.rescale = cfg, rescale
        scale = vae.factor(models.vae)
        sides = (min(side, tile[0] * scale) if tile else side for side in (width, height))
        self.size = tuple(sides)  # what SD XL is told
        self.beside, self.tile = beside, tile
        self.guided, self.together = cfg != 1.0, True
        self.positive, self.negative = positive, negative
        self._heard: tuple[Any, ...] = ()  # what was put on the device last, and for what

    @torch.no_grad()
    def __call__(self, query: Query, listener=None) -> Answer:
        """Model output (noise or velocity) for query.x (1, C, h, w), in the query's own type.

        `listener` hears the maps of every cross attention, see backends.AttentionProcessor. Raises
        InputError where the model returns values that are not finite.
        """
        x = query.x
        if self.beside is not None:
            x = torch.cat([x, self.beside.to(x)], 1)
        x = x.to(self.device, self.dtype)
        t = torch.as_tensor(query.t, device=x.device)
        context, more = self._listen(query.step)
        if self.together:
            out = self._ask(x.expand(len(context), *x.shape[1:]), t, context, more, listener)
        else:
            last = len(context) - 1  # the conditional picture: its are the word maps
            parts = [
                self._ask(x, t, context[i : i + 1], _row(more, i), listener if i == last else None)
                for i in range(len(context))
            ]
            out = torch.cat(parts)
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
            guided = rescaled(guided, cond, self.rescale)
        return Answer(guided, cond, uncond)

    def _ask(self, x, t, context, more, listener):
        def unet(x):
            return self.unet(x, t, encoder_hidden_states=context, return_dict=False, **more)[0]

        self.processor.listener = listener
        try:
            return unet(x) if self.tile is None else tiles.blended(unet, x, *self.tile)
        finally:
            self.processor.listener = None

    def _listen(self, step: int) -> tuple[torch.Tensor, dict]:
        """The words of this step on the device, (1 or 2, K, E), and what SD XL hears beside."""
        sides = (self.negative, self.positive) if self.guided else (self.positive,)
        heard = [side.at(step)[:2] for side in sides]
        if not self._heard or any(
            a is not b for a, b in zip(self._heard[0], [c for c, _ in heard], strict=True)
        ):
            context = torch.cat([c for c, _ in heard]).to(self.device, self.dtype)
            pooled = None if heard[0][1] is None else torch.cat([p for _, p in heard])
            more = conditions(pooled, *self.size, self.device, self.dtype)
            self._heard = [c for c, _ in heard], context, more
        return self._heard[1:]


def conditions(
    pooled: torch.Tensor | None, width: int, height: int, device: torch.device, dtype: torch.dtype
) -> dict:
    """What SD XL's UNet hears beside the words, as arguments; {} where `pooled` is None.

    pooled (B, P). The six sizes are those of a picture that was never scaled nor cropped, as
    Podell et al., arXiv 2307.01952, condition on them: (original, crop, target), height first.
    """
    if pooled is None:
        return {}
    sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype, device=device)
    added = {"text_embeds": pooled.to(device, dtype), "time_ids": sizes.repeat(len(pooled), 1)}
    return {"added_cond_kwargs": added}


def rescaled(guided: torch.Tensor, cond: torch.Tensor, share: float) -> torch.Tensor:
    """`guided` (1, C, h, w) brought back to the deviation of `cond` by `share`, 0 to 1.

    Lin et al., arXiv 2305.08891, section 3.4: strong guidance overexposes.
    """
    dims = list(range(1, guided.ndim))
    factor = cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return share * (guided * factor) + (1 - share) * guided


def _row(more: dict, i: int) -> dict:
    return {k: {name: v[i : i + 1] for name, v in added.items()} for k, added in more.items()}
