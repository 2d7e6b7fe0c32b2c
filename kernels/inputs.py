"""Random tensors as inputs for checks, measurements and tuning."""

from __future__ import annotations

from collections.abc import Callable

import torch


def normal_tensors(
    dtype: torch.dtype, device: str | torch.device, seed: int
) -> Callable[..., torch.Tensor]:
    """Return a function that makes random inputs: it takes a shape, as separate integers.

    The values are standard normal and the same again for the same seed, dtype, device and calls. On
    the device "meta" the tensors have a shape and a dtype but no values.
    """
    meta = torch.device(device).type == "meta"
    generator = None if meta else torch.Generator(device).manual_seed(seed)

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    return make
