"""DPM++ 2S a: DPM-Solver++(2S), arXiv 2211.01095, with ancestral noise, as in k-diffusion.

k-diffusion's function is `sample_dpmpp_2s_ancestral`. Each step makes two model calls; the last
step, to zero noise, makes one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from .sigma import Coroutine, Model, ancestral
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
    """Return a generator that samples one picture with DPM++ 2S a.

    It yields a Query (the UNet's input) for each model call, must be sent the Answer (the UNet's
    output), and returns the final latents (1, C, h, w).

    sampler, schedule: values of the dicts SAMPLERS and SCHEDULES. config: the checkpoint's
    scheduler configuration. noise: (1, C, h, w), unit variance. generator: draws the noise that is
    added during sampling. seed: not used. clean: for image to image, the latents (1, C, h, w) to
    begin with, plus noise of the level of step `start_step`; None begins with noise alone.
    """
    return _run(Model(sampler, schedule, config, noise, steps, generator, start_step, clean))


def _run(model: Model) -> Coroutine:
    x = model.first
    for i, (s, s_next) in enumerate(zip(model.sigmas, model.sigmas[1:], strict=False)):
        denoised = yield from model.denoise(x, s, i)
        if s_next == 0:
            return denoised
        down, up = ancestral(s, s_next)
        middle = math.sqrt(s * down)  # half way in log sigma
        x_middle = middle / s * x + (1 - middle / s) * denoised
        denoised = yield from model.denoise(x_middle, middle, i)
        x = down / s * x + (1 - down / s) * denoised + up * model.noise(x)
    return x
