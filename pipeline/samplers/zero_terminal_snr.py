"""Zero terminal SNR, arXiv 2305.08891: the first step, from a timestep that is noise alone.

With `rescale_betas_zero_snr` abar at the last timestep counts as 2**-24, not 0, as in diffusers'
Euler, so the highest sigma is 4096 and everything stays finite. Half of diffusers' classes do not
know the key. They get Euler's abar, and their step from the last timestep is DDIM's: it is exact
there, while averaging two slopes over that step, as Heun does, multiplies the model's error
by a hundred. It is for models that predict v; one that predicts noise runs, but at the last
timestep says nothing about the picture.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .prediction import to_clean, to_noise

ABAR = 2**-24
SIGMA = math.sqrt((1 - ABAR) / ABAR)
Call = tuple[int, Any, int]  # index, timestep, the user's step
PER_CALL = ("timesteps", "sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down")


def needs_help(scheduler: Any, sigma: float) -> bool:
    """Return whether diffusers' scheduler begins there, at noise level sigma, and cannot."""
    made = scheduler.config.get("rescale_betas_zero_snr", False)
    return not made and sigma > 0.99 * SIGMA


def leave(
    scheduler: Any,
    noise: torch.Tensor,
    output: torch.Tensor,
    velocity: bool,
    calls_per_step: int,
    calls: list[Call],
) -> tuple[torch.Tensor, list[Call]]:
    """Take DDIM's step from the last timestep to the next level; return the latents and the calls
    that are left.

    `output` is the model's for `noise`, v if `velocity`, else eps. The scheduler then begins with
    the second step, as its first.
    """
    alpha, beta = math.sqrt(ABAR), math.sqrt(1 - ABAR)
    prediction = "v_prediction" if velocity else "epsilon"
    x0 = to_clean(noise, output, alpha, beta, prediction)
    eps = to_noise(noise, output, alpha, beta, prediction)
    if hasattr(scheduler, "sigmas"):
        scale = scheduler.init_noise_sigma
        sigma = float(
            scheduler.sigmas[calls_per_step:][0] if calls[calls_per_step:] else scheduler.sigmas[-1]
        )
        for name in PER_CALL:
            if hasattr(scheduler, name):
                setattr(scheduler, name, getattr(scheduler, name)[calls_per_step:])
        calls = [(i, t, step) for i, (_, t, step) in enumerate(calls[calls_per_step:])]
    else:  # PLMS, which calls twice at its first step
        scale = 1.0
        left = calls[1:2] + calls[3:4] + calls[3:]
        abar = scheduler.alphas_cumprod[left[0][1]] if left else scheduler.final_alpha_cumprod
        sigma = math.sqrt((1 - float(abar)) / float(abar))
        calls = [(i, t, max(1, i)) for i, (_, t, _) in enumerate(left)]
    latents = x0 + sigma * eps
    return (latents if scale != 1 else latents / math.sqrt(1 + sigma**2)), calls
