"""DPM++ 3M SDE, as k-diffusion has it: DPM-Solver++(3M), arXiv 2211.01095, for the reverse SDE.

diffusers' `solver_order=3` departs from it: its weight of the second difference is -1 too low, and
so does not vanish with the step.
"""

from __future__ import annotations

import math

from .sigma import Model


def make_sampler(
    sampler, schedule, config, noise, steps, generator, seed, start_step=0, clean=None
):
    """The coroutine for a line of SAMPLERS and one of SCHEDULES; see `samplers.make_sampler`."""
    return _run(Model(sampler, schedule, config, noise, steps, generator, start_step, clean))


def _run(model):
    x, past = model.first, []  # past: (denoised, h) of the steps before, the latest first
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
        for older, h_older in past:
            slopes.append((newer - older) * (h / h_older))
            newer = older
        if len(past) == 1:
            x = x + phi_2 * slopes[0]
        elif past:
            (_, h_1), (_, h_2) = past
            bend = (slopes[0] - slopes[1]) / (h_1 + h_2)
            x = x + phi_2 * (slopes[0] + h_1 * bend) - phi_3 * h * bend
        x = x + s_next * math.sqrt(-math.expm1(-y)) * model.noise(x)
        past = [(denoised, h), *past][:2]
