"""Query and Answer: the messages between a sampler, which is a generator, and the model.

A sampler yields a Query for each model call, is sent the Answer, and returns the final latents:

    query = next(sampler)
    while True:
        try:
            query = sampler.send(denoise(query))
        except StopIteration as end:
            return end.value
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """The input of one model call that a sampler requests.

    x      the UNet's input (1, C, h, w), always variance preserving, whatever scale the sampler
           computes in: x = sqrt(abar) x0 + sqrt(1 - abar) eps, where abar is alphas_cumprod[t]
    t      the timestep for the UNet, a 0-dimensional tensor on x's device; it may be a fraction
    step   the sampling step that this call belongs to, from 0; never decreases. Several calls may
           belong to one step
    sigma  the noise level of x, sqrt((1 - abar) / abar)
    """

    x: Tensor
    t: Tensor
    step: int
    sigma: float


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The model's output for one Query, sent back to the sampler, which asked for that call.

    All tensors have the shape (1, C, h, w) of the UNet's input.

    output  the output after classifier-free guidance: noise eps or velocity v, according to the
            checkpoint's prediction_type
    cond    the output for the prompt alone; None if it is not known
    uncond  the output for the negative prompt alone; None without guidance
    """

    output: Tensor
    cond: Tensor | None = None
    uncond: Tensor | None = None
