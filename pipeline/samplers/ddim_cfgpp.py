"""DDIM CFG++, arXiv 2406.08070: the clean picture from the guided noise, the way on by the other.

The paper's scale lies between 0 and 1. As in A1111, the usual scale is divided by 12.5: cfg 7 means
0.56 here. Without guidance (cfg 1: the model is not asked for an unconditional answer) it is DDIM.
"""

from __future__ import annotations

import math

from . import diffusers_adapter
from .base import Query

SCALE = 12.5


def make_sampler(
    sampler, schedule, config, noise, steps, generator, seed, start_step=0, clean=None
):
    """The coroutine for a line of SAMPLERS and one of SCHEDULES; see `samplers.make_sampler`."""
    ddim = diffusers_adapter.build(sampler, schedule, config, steps)
    ddim.timesteps = ddim.timesteps[start_step:]
    x = noise if clean is None else diffusers_adapter.noisy(ddim, noise, clean)[1]
    return _run(ddim, x, steps)


def _run(ddim, x, steps):
    stride = ddim.config.num_train_timesteps // steps
    velocity = ddim.config.prediction_type == "v_prediction"
    for i, t in enumerate(ddim.timesteps):
        answer = yield Query(x, t.to(x.device), i, diffusers_adapter.level(ddim, i, t))
        output, away = answer.output.to(x.dtype), 0.0
        if answer.uncond is not None:
            uncond = answer.uncond.to(x.dtype)
            away = (uncond - output) * (1 / SCALE)
            output = uncond - away
        x = ddim.step(output, t, x, return_dict=False)[0]
        if answer.uncond is not None:
            before = int(t) - stride
            abar = ddim.alphas_cumprod[before] if before >= 0 else ddim.final_alpha_cumprod
            share = math.sqrt(float(ddim.alphas_cumprod[t])) if velocity else 1.0  # of eps in v
            x = x + math.sqrt(1 - float(abar)) * share * away
    return x
