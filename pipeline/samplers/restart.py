"""Restart, arXiv 2306.14878: Heun steps that at sigma 0.1 add noise up to sigma 2 and go on there.

The number of restarts depends on the number of steps, as in A1111: none below 20 steps; one of 9
steps from 20 on; two of a quarter of the steps each from 36 on. The steps of a restart have
Karras's spacing. They are part of the requested number of steps, so the first descent has fewer.
If sampling begins at a later step (image to image), the remaining steps are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from . import zero_terminal_snr
from .sigma import Coroutine, Model
from .table import Sampler, Schedule

# A restart adds noise at the level nearest to LOW, up to the level nearest to HIGH.
LOW, HIGH = 0.1, 2.0


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
    """Return a generator that samples one picture with Restart.

    It yields a Query (the UNet's input) for each model call, must be sent the Answer (the UNet's
    output), and returns the final latents (1, C, h, w).

    sampler, schedule: values of the dicts SAMPLERS and SCHEDULES. config: the checkpoint's
    scheduler configuration. noise: (1, C, h, w), unit variance. generator: draws the noise that is
    added at each restart. seed: not used. clean: for image to image, the latents (1, C, h, w) to
    begin with, plus noise of the level of step `start_step`; None begins with noise alone.
    """
    left = steps - start_step
    length, times = (left // 4, 2) if left >= 36 else (9, 1) if left >= 20 else (0, 0)

    def model_with(fewer: int) -> Model:
        if not start_step:
            return Model(sampler, schedule, config, noise, steps - fewer, generator, 0, clean)
        model = Model(sampler, schedule, config, noise, steps, generator, start_step, clean)
        model.sigmas = _fewer(model.sigmas, fewer)
        return model

    model = model_with(length * times)
    intervals = _intervals(model.sigmas, length, times)
    if len(intervals) < left:  # LOW and HIGH have the same nearest level: no restart is possible
        model = model_with(0)
        intervals = list(pairwise(model.sigmas))
    return _run(model, intervals)


def _fewer(sigmas: list[float], less: int) -> list[float]:
    """Return noise levels spaced like `sigmas`, but `less` fewer, to leave steps for restarts.

    sigmas: falling, with 0 at the end. The first level, the lowest one above zero, and the 0 are
    kept. The others are interpolated in sigma ** (1 / 7), so levels with Karras's spacing keep this
    spacing.
    """
    if not less:
        return sigmas
    roots, index = np.array(sigmas[:-1]) ** (1 / 7), np.arange(len(sigmas) - 1)
    fewer = np.interp(np.linspace(0, index[-1], len(index) - less), index, roots) ** 7
    return [sigmas[0], *fewer[1:].tolist(), 0.0]


def _run(model: Model, intervals: list[tuple[float, float]]) -> Coroutine:
    x, reached = model.first, intervals[0][0]
    for i, (s, s_next) in enumerate(intervals):
        if s > reached:
            x = x + (s**2 - reached**2) ** 0.5 * model.noise(x)
        slope = (x - (yield from model.denoise(x, s, i))) / s
        ahead = x + (s_next - s) * slope
        if s_next > 0 and s < zero_terminal_snr.SIGMA / 2:
            slope_ahead = (ahead - (yield from model.denoise(ahead, s_next, i))) / s_next
            ahead = x + (s_next - s) * (slope + slope_ahead) / 2
        x, reached = ahead, s_next
    return x


def _intervals(sigmas: list[float], length: int, times: int) -> list[tuple[float, float]]:
    """Return the noise levels (from, to) of every Heun step of the sampler Restart, in order.

    Sampling goes down through `sigmas`. At a low level it restarts: noise is added up to a high
    level, from which steps lead down again to the low one. The low level is the one in `sigmas`
    nearest to 0.1, the high level the one nearest to 2; if both are the same, nothing restarts.

    sigmas: falling noise levels with 0 at the end. length: number of steps of one restart. times:
    number of restarts.
    """
    low, high = (int(np.abs(np.array(sigmas) - level).argmin()) for level in (LOW, HIGH))
    again: list[tuple[float, float]] = []
    if low > high:
        ends = sigmas[high] ** (1 / 7), sigmas[low] ** (1 / 7)
        levels = np.linspace(*ends, length + 1) ** 7
        again = list(pairwise(levels.tolist())) * times
    steps = list(pairwise(sigmas))
    return steps[:low] + again + steps[low:]
