"""Zero terminal SNR, arXiv 2305.08891: the step away from where nothing is left of the picture.

With `rescale_betas_zero_snr` abar at the last timestep counts as 2**-24, not 0, as in diffusers'
Euler, so the highest sigma is 4096 and everything stays finite. Half of diffusers' classes do not
know the key. They get Euler's abar, and their step away from the last timestep is DDIM's: it is
exact there, while averaging two slopes over that step, as Heun does, multiplies the model's error
by a hundred. It is for models that predict v; one that predicts noise runs, but at the last
timestep says nothing about the picture.
"""

from __future__ import annotations

import math

from .prediction import to_clean, to_noise

ABAR = 2**-24
SIGMA = math.sqrt((1 - ABAR) / ABAR)
PER_CALL = ("timesteps", "sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down")


def needs_help(scheduler, sigma: float) -> bool:
    """Whether diffusers' scheduler begins there, at noise level sigma, and was not made for it."""
    made = scheduler.config.get("rescale_betas_zero_snr", False)
    return not made and sigma > 0.99 * SIGMA


def leave(scheduler, noise, output, velocity: bool, order: int, calls: list) -> tuple:
    """DDIM's step from the last timestep to the next level: the latents, the calls still to make.

    `output` is the model's answer to `noise`, v if `velocity`, else eps; `calls` are (index,
    timestep, the user's step) and `order` of them belong to a step. The scheduler then begins with
    the second step, as its first.
    """
    alpha, beta = math.sqrt(ABAR), math.sqrt(1 - ABAR)
    prediction = "v_prediction" if velocity else "epsilon"
    x0 = to_clean(noise, output, alpha, beta, prediction)
    eps = to_noise(noise, output, alpha, beta, prediction)
    if hasattr(scheduler, "sigmas"):
        scale = scheduler.init_noise_sigma
        sigma = float(scheduler.sigmas[order:][0] if calls[order:] else scheduler.sigmas[-1])
        for name in PER_CALL:
            if hasattr(scheduler, name):
                setattr(scheduler, name, getattr(scheduler, name)[order:])
        calls = [(i, t, step) for i, (_, t, step) in enumerate(calls[order:])]
    else:  # PLMS, which calls twice at its first step
        scale = 1
        left = calls[1:2] + calls[3:4] + calls[3:]
        abar = scheduler.alphas_cumprod[left[0][1]] if left else scheduler.final_alpha_cumprod
        sigma = math.sqrt((1 - float(abar)) / float(abar))
        calls = [(i, t, max(1, i)) for i, (_, t, _) in enumerate(left)]
    latents = x0 + sigma * eps
    return (latents if scale != 1 else latents / math.sqrt(1 + sigma**2)), calls
