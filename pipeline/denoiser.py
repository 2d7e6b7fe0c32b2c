"""The UNet with classifier-free guidance: answers a sampler's query.

Each call is [unconditional, conditional] of one image, so its pixels do not depend on what else
is being drawn (Ho and Salimans, arXiv 2207.12598).
"""

from __future__ import annotations

import torch

from .errors import InputError
from .samplers.base import Answer, Query


class Denoiser:
    """One image's denoiser: `unet` under `context` and `uncond` (1, K, E) with guidance `cfg`."""

    def __init__(
        self, unet, context: torch.Tensor, uncond: torch.Tensor, cfg: float, processor=None
    ):
        self.unet, self.cfg, self.processor = unet, cfg, processor
        self.device, self.dtype = unet.device, unet.dtype  # diffusers walks all modules for each
        self.guided = cfg != 1.0
        both = torch.cat([uncond, context]) if self.guided else context
        self.context = both.to(self.device, self.dtype)

    @torch.no_grad()
    def __call__(self, query: Query, listener=None) -> Answer:
        """Model output (noise or velocity) for query.x (1, C, h, w), in the query's own type.

        `listener` hears the maps of every cross attention, see backends.AttentionProcessor. Raises
        InputError where the model returns values that are not finite.
        """
        x = query.x.to(self.device, self.dtype)
        x = x.expand(len(self.context), *x.shape[1:])
        t = torch.as_tensor(query.t, device=x.device)
        if listener is not None:
            self.processor.listener = listener
        try:
            out = self.unet(x, t, encoder_hidden_states=self.context, return_dict=False)[0]
        finally:
            if listener is not None:
                self.processor.listener = None
        out = out.to(query.x.device, query.x.dtype)
        if not torch.isfinite(out).all():
            raise InputError(
                f"The model returned values that are not finite at step {query.step + 1}; "
                "load it with dtype fp32, or lower the guidance."
            )
        if not self.guided:
            return Answer(out, out, None)
        uncond, cond = out.chunk(2)
        return Answer(uncond + self.cfg * (cond - uncond), cond, uncond)


def predicted_clean(query: Query, output: torch.Tensor, prediction: str) -> torch.Tensor:
    """The clean latents that the model's output means at this query, (1, C, h, w).

    `prediction` is the scheduler's `prediction_type`: epsilon, v_prediction or sample.
    """
    alpha = 1 / (1 + query.sigma**2) ** 0.5
    beta = query.sigma * alpha
    if prediction == "v_prediction":
        return alpha * query.x - beta * output
    if prediction == "sample":
        return output
    return (query.x - beta * output) / alpha
