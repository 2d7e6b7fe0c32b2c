"""DPM++ 3M SDE, as k-diffusion has it: DPM-Solver++(3M), arXiv 2211.01095, for the reverse SDE.

diffusers' `solver_order=3` departs from it: its weight of the second difference is -1 too low, and
so does not vanish with the step.
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
    """Return the coroutine for a row of SAMPLERS and one of SCHEDULES; see
    `samplers.make_sampler`."""
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
