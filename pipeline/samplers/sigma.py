"""Shared code of the samplers that diffusers does not have: the UNet in k-diffusion's scale.

In that scale the latents are x = x0 + sigma eps, and the model is a denoiser D(x, sigma) that
returns x0.
"""

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
    """The UNet as k-diffusion's denoiser D(x, sigma), with the noise levels of one picture.

    Samplers that diffusers does not have are written with it. sampler, schedule: values of the
    dicts SAMPLERS and SCHEDULES. config: the scheduler configuration. noise: (1, C, h, w), unit
    variance. clean: for image to image, latents to begin with, plus noise of the level of step
    `start_step`.

    sigmas     the noise level of each step that is taken, falling, and a 0 at the end
    first      the latents to begin with, x0 + sigma eps (1, C, h, w): noise at the highest level,
               or `clean` with noise at the level of step `start_step`
    trained    the noise level of every timestep that the model was trained with, rising
    generator  the source of the noise that `noise` draws
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
        """Call the model and return D(x, sigma), the predicted clean latents, in the shape of x.

        A generator: use it with `yield from`. It yields one Query (the UNet's input), whose
        timestep may be a fraction, and is sent the Answer (the UNet's output). x: latents x0 +
        sigma eps (1, C, h, w). step: index of the sampling step, from 0.
        """
        t = torch.tensor(schedules.timestep(sigma, self.trained), device=x.device)
        query = Query(x / math.sqrt(1 + sigma**2), t, step, sigma)
        output = (yield query).output.to(x.dtype)
        return prediction.denoised(x, query.x, output, sigma, self.prediction)

    def noise(self, x: torch.Tensor) -> torch.Tensor:
        """Draw unit noise with the shape, device and dtype of x, from the CPU generator."""
        return torch.randn(x.shape, generator=self.generator).to(x)


def ancestral(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Split a step from noise level sigma to sigma_next into a deterministic and a random part.

    Returns (down, up): step to the level `down` without noise, then add noise of standard deviation
    `up`; together this gives sigma_next. k-diffusion's get_ancestral_step with eta 1.
    """
    up = min(sigma_next, sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
    return math.sqrt(sigma_next**2 - up**2), up
