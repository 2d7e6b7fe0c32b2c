"""Conversions between the three things a model may predict: noise eps, velocity v, clean x0.

The UNet's input is variance preserving: x_t = alpha x0 + beta eps with alpha = sqrt(abar) and
beta = sqrt(1 - abar); abar is diffusers' `alphas_cumprod[t]`, and the noise level is
sigma = beta / alpha. k-diffusion's scale is x0 + sigma eps = x_t / alpha. The velocity is
v = alpha eps - beta x0 (Salimans and Ho, arXiv 2202.00512).

`prediction` is the scheduler's `prediction_type`: "epsilon", "v_prediction" or "sample".
Some conversions exist for both scales: their results differ only by rounding, and each caller uses
the one for the scale that its latents have. All functions work on torch tensors and NumPy arrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from .base import Query

    Array = TypeVar("Array", Tensor, np.ndarray)


def alpha_beta(sigma: float) -> tuple[float, float]:
    """Return (alpha, beta) = (sqrt(abar), sqrt(1 - abar)) at the noise level sigma = beta / alpha.

    They are the factors of x0 and eps in the UNet's input x_t = alpha x0 + beta eps.
    """
    alpha = 1 / (1 + sigma**2) ** 0.5
    return alpha, sigma * alpha


def to_clean(x: Array, output: Array, alpha: float, beta: float, prediction: str) -> Array:
    """Convert the model's `output` to the clean latents x0 that it predicts.

    x: the UNet's input, x = alpha x0 + beta eps, with alpha = sqrt(abar) and beta = sqrt(1 - abar).
    prediction: what the output is, "epsilon", "v_prediction" or "sample".
    """
    if prediction == "v_prediction":
        return alpha * x - beta * output
    if prediction == "sample":
        return output
    return (x - beta * output) / alpha


def to_noise(x: Array, output: Array, alpha: float, beta: float, prediction: str) -> Array:
    """Convert the model's `output` to the noise eps that it predicts.

    x: the UNet's input, x = alpha x0 + beta eps, with alpha = sqrt(abar) and beta = sqrt(1 - abar).
    prediction: what the output is, "epsilon", "v_prediction" or "sample".
    """
    if prediction == "v_prediction":
        return alpha * output + beta * x
    if prediction == "sample":
        return (x - alpha * output) / beta
    return output


def predicted_clean(query: Query, output: Tensor, prediction: str) -> Tensor:
    """Convert the model's output for a Query to the clean latents x0 (1, C, h, w) it predicts.

    query: the UNet's input and its noise level. prediction: what the output is, "epsilon",
    "v_prediction" or "sample".
    """
    return to_clean(query.x, output, *alpha_beta(query.sigma), prediction)


def output_for(query: Query, clean: Tensor, prediction: str) -> Tensor:
    """Return the model output that predicts the clean latents `clean` for the UNet's input query.x.

    Inpainting, for example, changes the predicted clean latents and needs them as a model output to
    send to the sampler. clean: (1, C, h, w), as the result. prediction: the kind of output,
    "epsilon", "v_prediction" or "sample".
    """
    alpha, beta = alpha_beta(query.sigma)
    if prediction == "v_prediction":
        return (alpha * query.x - clean) / beta
    if prediction == "sample":
        return clean
    return (query.x - alpha * clean) / beta


def denoised(x: Array, x_vp: Array, output: Array, sigma: float, prediction: str) -> Array:
    """Return k-diffusion's D(x, sigma): the clean latents that the model's `output` predicts.

    x: the latents in k-diffusion's scale, x0 + sigma eps. x_vp: the same latents in the variance-
    preserving scale, as they were passed to the UNet. prediction: "epsilon" or "v_prediction".
    """
    if prediction == "v_prediction":
        return (x_vp - sigma * output) / math.sqrt(1 + sigma**2)
    return x - sigma * output


def output_in_sigma_scale(x: Array, clean: Array, sigma: float, prediction: str) -> Array:
    """Return the model output that predicts the clean latents `clean` at x = x0 + sigma eps.

    x: the noisy latents in k-diffusion's scale (not scaled to preserve variance). prediction: the
    kind of output, "epsilon" or "v_prediction".
    """
    noise = (x - clean) / sigma
    if prediction == "v_prediction":
        return (noise - sigma * clean) / math.sqrt(1 + sigma**2)
    return noise


def velocity_to_noise(x_vp: Array, velocity: Array, sigma: float) -> Array:
    """Convert a predicted velocity v to the noise eps that it implies.

    x_vp: the UNet's input, alpha x0 + beta eps (variance preserving). sigma: its noise level beta /
    alpha.
    """
    return (sigma * x_vp + velocity) / math.sqrt(1 + sigma**2)


def add_noise(clean: Tensor, noise: Tensor, abar: float | Tensor) -> Tensor:
    """Return the noisy latents x_t = sqrt(abar) x0 + sqrt(1 - abar) eps.

    abar: alphas_cumprod[t], a number or a tensor that broadcasts over the latents.
    """
    return abar**0.5 * clean + (1 - abar) ** 0.5 * noise


def velocity(clean: Tensor, noise: Tensor, abar: float | Tensor) -> Tensor:
    """Return the velocity v = sqrt(abar) eps - sqrt(1 - abar) x0: the target of v-prediction.

    abar: alphas_cumprod[t], a number or a tensor that broadcasts over the latents.
    """
    return abar**0.5 * noise - (1 - abar) ** 0.5 * clean
