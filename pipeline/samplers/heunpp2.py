"""HeunPP2: Heun++ of sd-webui-samplers-scheduler (Carzit), as in A1111's forks and ComfyUI.

Each step also evaluates the slope one and two noise levels ahead. The weight of such a slope is
its noise level divided by the highest noise level, so late steps are almost Euler steps. Therefore
it converges only in first order, although it makes three model calls per step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .sigma import Coroutine, Model
from .table import Sampler, Schedule


def make_sampler(
    sampler: Sampler,
    schedule: Schedule,
    config: Mapping[str, Any],
    noise: torch.Tensor,
    steps: int,
    generator: torch.Generator,
    seed: int,
    start_step: int = 0,
    clean: torch.Tensor | None = None,
) -> Coroutine:
    """Return a generator that samples one picture with HeunPP2.

    It yields a Query (the UNet's input) for each model call, must be sent the Answer (the UNet's
    output), and returns the final latents (1, C, h, w).

    sampler, schedule: values of the dicts SAMPLERS and SCHEDULES. config: the checkpoint's
    scheduler configuration. noise: (1, C, h, w), unit variance. generator, seed: not used, as no
    noise is added. clean: for image to image, the latents (1, C, h, w) to begin with, plus noise of
    the level of step `start_step`; None begins with noise alone.
    """
    return _run(Model(sampler, schedule, config, noise, steps, generator, start_step, clean))


def _run(model: Model) -> Coroutine:
    x, sigmas = model.first, model.sigmas
    for i, s in enumerate(sigmas[:-1]):
        ahead = [sigma for sigma in sigmas[i + 1 : i + 3] if sigma > 0]
        slope = (x - (yield from model.denoise(x, s, i))) / s
        mean, here, x_ahead, d = slope, s, x, slope
        for sigma in ahead:
            x_ahead, here = x_ahead + (sigma - here) * d, sigma
            d = (x_ahead - (yield from model.denoise(x_ahead, sigma, i))) / sigma
            mean = mean + sigma / ((len(ahead) + 1) * sigmas[0]) * (d - slope)
        x = x + (sigmas[i + 1] - s) * mean
    return x
