"""DDIM CFG++, arXiv 2406.08070: DDIM that adds the unconditional noise again, not the guided one.

The clean latents x0 are computed from the guided output, as in DDIM. The paper's guidance scale
lies between 0 and 1; as in A1111 it is the usual scale divided by 12.5, so cfg 7 means 0.56.
Without guidance (cfg 1, where the model makes no unconditional output) this is plain DDIM.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from . import diffusers_adapter
from .base import Query
from .sigma import Coroutine
from .table import Sampler, Schedule

SCALE = 12.5


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
    """Return a generator that samples one picture with DDIM CFG++ (guided x0, unconditional noise).

    It yields a Query (the UNet's input) for each model call, must be sent the Answer (the UNet's
    output), and returns the final latents (1, C, h, w).

    sampler, schedule: values of the dicts SAMPLERS and SCHEDULES. config: the checkpoint's
    scheduler configuration. noise: (1, C, h, w), unit variance. generator, seed: not used, as no
    noise is added. clean: for image to image, the latents (1, C, h, w) to begin with, plus noise of
    the level of step `start_step`; None begins with noise alone.
    """
    ddim = diffusers_adapter.build(sampler, schedule, config, steps)
    ddim.timesteps = ddim.timesteps[start_step:]
    x = noise if clean is None else diffusers_adapter.add_first_noise(ddim, noise, clean)[1]
    return _run(ddim, x, steps)


def _run(ddim: Any, x: torch.Tensor, steps: int) -> Coroutine:
    stride = ddim.config.num_train_timesteps // steps
    velocity = ddim.config.prediction_type == "v_prediction"
    for i, t in enumerate(ddim.timesteps):
        answer = yield Query(x, t.to(x.device), i, diffusers_adapter.sigma_at(ddim, i, t))
        output = answer.output.to(x.dtype)
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
