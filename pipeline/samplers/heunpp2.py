"""HeunPP2: Heun++ of sd-webui-samplers-scheduler (Carzit), as A1111's forks and ComfyUI have it.

It evaluates the slope one and two steps ahead and weighs each by its noise level over the highest
one, so late steps are almost Euler's and it converges in first order only, for all its calls.
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
    """Return the coroutine for a row of SAMPLERS and one of SCHEDULES; see
    `samplers.make_sampler`."""
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
