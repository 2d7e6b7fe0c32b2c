"""What our own samplers share: k-diffusion's scale x = x0 + sigma eps, and the UNet in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from . import diffusers_adapter, prediction, schedules
from .base import Query
from .diffusers_adapter import Coroutine
from .table import Sampler, Schedule


class Model:
    """The UNet as k-diffusion's D(x, sigma), with a sampler's noise levels.

    sigmas  a float per step and a last 0, from the scheduler of the sampler's row
    first   the latents to begin with (1, C, h, w): noise at the highest level, or `clean` with the
            noise of step `start_step`
    """

    def __init__(
        self,
        sampler: Sampler,
        schedule: Schedule,
        config: Mapping[str, Any],
        noise: torch.Tensor,
        steps: int,
        generator: torch.Generator,
        start_step: int = 0,
        clean: torch.Tensor | None = None,
    ):
        scheduler = diffusers_adapter.build(sampler, schedule, config, steps)
        self.sigmas = [float(sigma) for sigma in scheduler.sigmas][start_step:]
        self.first = noise * float(scheduler.init_noise_sigma)
        if clean is not None:
            self.first = clean.to(noise) + self.sigmas[0] * noise
        self.trained = diffusers_adapter.trained_sigmas(scheduler)
        self.prediction = config.get("prediction_type") or "epsilon"
        self.generator = generator

    def denoise(self, x: torch.Tensor, sigma: float, step: int) -> Coroutine:
        """Ask for the model at x and return D(x, sigma), the clean latents; use `yield from`.

        The timestep may be a fraction.
        """
        t = torch.tensor(schedules.timestep(sigma, self.trained), device=x.device)
        query = Query(x / math.sqrt(1 + sigma**2), t, step, sigma)
        output = (yield query).output.to(x.dtype)
        return prediction.denoised(x, query.x, output, sigma, self.prediction)

    def noise(self, x: torch.Tensor) -> torch.Tensor:
        """Draw noise of x's shape, on the CPU whatever the device."""
        return torch.randn(x.shape, generator=self.generator).to(x)


def ancestral(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Return (down, up): the level to step down to without noise, and how much noise to add there
    to reach sigma_next (k-diffusion's get_ancestral_step)."""
    up = min(sigma_next, sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
    return math.sqrt(sigma_next**2 - up**2), up
