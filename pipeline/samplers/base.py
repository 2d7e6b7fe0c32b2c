"""Query and Answer: the two messages between a sampler's coroutine and the model.

A sampler is a generator. It yields a Query, is sent an Answer, and returns the final latents:

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
    """A call of the model that the sampler needs.

    x      the UNet's input (1, C, h, w), always in the variance-preserving scale:
           x = sqrt(abar) x0 + sqrt(1 - abar) eps, whatever scale the sampler computes in
    t      the timestep for the UNet, a tensor without dimensions on x's device; whole or not
    step   the user's step that this call belongs to, 0 to steps - 1; never decreases
    sigma  the noise level of x, sqrt((1 - abar) / abar)
    """

    x: Tensor
    t: Tensor
    step: int
    sigma: float


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The model's output for a Query; tensors of x's shape.

    output        the guided model output, eps or v as the checkpoint's prediction_type says
    cond, uncond  its conditional and unconditional part, where there are two
    """

    output: Tensor
    cond: Tensor | None = None
    uncond: Tensor | None = None
