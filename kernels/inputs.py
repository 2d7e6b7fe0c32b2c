"""Random tensors for checks and measurements."""

from __future__ import annotations

from collections.abc import Callable

import torch


def normal_tensors(
    dtype: torch.dtype, device: str | torch.device, seed: int
) -> Callable[..., torch.Tensor]:
    """Return a function that makes a tensor of normal values of the shape it is given.

    On the device "meta" tensors have a shape and no values.
    """
    meta = torch.device(device).type == "meta"
    generator = None if meta else torch.Generator(device).manual_seed(seed)

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    return make
