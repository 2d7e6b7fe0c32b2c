"""Zero terminal SNR, arXiv 2305.08891: the first step, from a timestep that is noise alone.

With `rescale_betas_zero_snr` in the scheduler configuration, abar (alphas_cumprod) at the last
timestep is taken as 2**-24 instead of 0, as in diffusers' Euler. So the highest sigma is 4096, and
all numbers stay finite. Half of diffusers' schedulers do not know that key. They are given Euler's
abar, and `leave` takes their step from the last timestep by DDIM's rule. That rule is exact there,
while a step that averages two slopes, as Heun does, multiplies the model's error by a hundred.
The key is meant for models that predict v. A model that predicts noise can be run, but its output
at the last timestep says nothing about the picture.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .prediction import to_clean, to_noise

ABAR = 2**-24
SIGMA = math.sqrt((1 - ABAR) / ABAR)
Call = tuple[int, Any, int]  # a model call: its index in the scheduler, its timestep, its step
# Attributes of diffusers' schedulers that hold one number for each model call.
PER_CALL = ("timesteps", "sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down")


def needs_help(scheduler: Any, sigma: float) -> bool:
    """Return whether a diffusers scheduler is unable to start from pure noise (zero terminal SNR).

    If so, `leave` must take the first step in its place. This is the case if its first noise level
    `sigma` is that of pure noise (SIGMA, 4096) and its class does not support
    `rescale_betas_zero_snr`.
    """
    supported = scheduler.config.get("rescale_betas_zero_snr", False)
    return not supported and sigma > 0.99 * SIGMA


def leave(
    scheduler: Any,
    noise: torch.Tensor,
    output: torch.Tensor,
    velocity: bool,
    calls_per_step: int,
    calls: list[Call],
) -> tuple[torch.Tensor, list[Call]]:
    """Take the first step of zero terminal SNR, from pure noise to the next level, by DDIM's rule.

    It stands in for diffusers schedulers that cannot start from pure noise. Returns the latents (1,
    C, h, w) after the step, in the scheduler's own scale, and the model calls that remain. It also
    changes `scheduler`, so that the second step becomes its first.

    scheduler       a diffusers scheduler whose timesteps are set
    noise           (1, C, h, w), unit variance: the UNet's input at the last timestep
    output          the model output for it
    velocity        whether the output is v; else it is eps
    calls_per_step  model calls per step of the sampler
    calls           (index in the scheduler, timestep, step) of all model calls, the first included
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
