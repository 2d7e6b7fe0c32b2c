"""DPM++ 3M SDE: the multistep solver of order 3 of DPM-Solver++, for the reverse SDE.

It is k-diffusion's `sample_dpmpp_3m_sde`; the paper is arXiv 2211.01095. diffusers'
`solver_order=3` is not used because it differs: its weight of the second difference is too low by
1, so that this term does not vanish as the steps get smaller.
"""

from __future__ import annotations

import math
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
    """Return a generator that samples one picture with DPM++ 3M SDE.

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
    history: list[tuple[torch.Tensor, float]] = []  # (denoised, h) of earlier steps, latest first
    for i, (s, s_next) in enumerate(zip(model.sigmas, model.sigmas[1:], strict=False)):
        denoised = yield from model.denoise(x, s, i)
        if s_next == 0:
            return denoised
        h = math.log(s / s_next)
        y = 2 * h  # the SDE forgets x twice as fast as the flow does
        x = math.exp(-y) * x - math.expm1(-y) * denoised
        phi_2 = math.expm1(-y) / y + 1
        phi_3 = phi_2 / y - 0.5
        slopes = []  # divided differences of the denoised, times h
        newer = denoised
        for older, h_older in history:
            slopes.append((newer - older) * (h / h_older))
            newer = older
        if len(history) == 1:
            x = x + phi_2 * slopes[0]
        elif history:
            (_, h_1), (_, h_2) = history
            bend = (slopes[0] - slopes[1]) / (h_1 + h_2)
            x = x + phi_2 * (slopes[0] + h_1 * bend) - phi_3 * h * bend
        x = x + s_next * math.sqrt(-math.expm1(-y)) * model.noise(x)
        history = [(denoised, h), *history][:2]
    return x
