"""What our own samplers share: k-diffusion's scale x = x0 + sigma eps, around the UNet's own."""

from __future__ import annotations

import math

import torch

from . import diffusers_adapter, prediction, schedules
from .base import Query


class Model:
    """The UNet as k-diffusion's D(x, sigma): a sampler's noise levels, and what they lead to.

    sigmas  one float per step and a last 0, from the scheduler of the sampler's line
    first   the latents to begin with: noise at the highest level, or `clean` with noise at that of
            step `begin`
    """

    def __init__(
        self, sampler, schedule, config, noise, steps, generator, start_step=0, clean=None
    ):
        scheduler = diffusers_adapter.build(sampler, schedule, config, steps)
        self.sigmas = [float(sigma) for sigma in scheduler.sigmas][start_step:]
        self.first = noise * float(scheduler.init_noise_sigma)
        if clean is not None:
            self.first = clean.to(noise) + self.sigmas[0] * noise
        self.trained = diffusers_adapter.trained_sigmas(scheduler)
        self.predicts = config.get("prediction_type") or "epsilon"
        self.generator = generator

    def denoise(self, x, sigma: float, step: int):
        """D(x, sigma), to be had by `yield from`; the timestep may be a fraction."""
        t = torch.tensor(schedules.timestep(sigma, self.trained), device=x.device)
        query = Query(x / math.sqrt(1 + sigma**2), t, step, sigma)
        output = (yield query).output.to(x.dtype)
        return prediction.denoised(x, query.x, output, sigma, self.predicts)

    def noise(self, x):
        """Fresh noise of x's shape, drawn on the CPU whatever the device."""
        return torch.randn(x.shape, generator=self.generator).to(x)


def ancestral(sigma: float, sigma_next: float) -> tuple[float, float]:
    """How far down to go without noise, and how much noise then leads to sigma_next."""
    up = min(sigma_next, sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
    return math.sqrt(sigma_next**2 - up**2), up
