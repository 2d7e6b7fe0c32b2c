"""This project's own GroupNorm kernel, with shift and SiLU in the same launch."""

from __future__ import annotations

from functools import lru_cache

import torch

from . import failures


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return why it cannot run there, in a sentence; None where it can."""
    try:
        from kernels import group_norm
    except ImportError:
        return "triton is not installed here."
    return group_norm.unsupported(device, dtype) or _probe(str(device), dtype)


def run(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute GroupNorm of x (B, C, H, W) plus shift (B, C), then SiLU if asked for."""
    from kernels.group_norm import group_norm

    return group_norm(x, groups, weight, bias, eps, silu=silu, shift=shift)


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """Try one tiny call; where it fails, warn and return the reason."""
    if failures.ON_ZERO_GPU:
        return None
    x = torch.zeros((1, 8, 4, 4), device=device, dtype=dtype)
    try:
        with failures.wrap_kernel_errors("GroupNorm", "triton", x):
            run(x, 2, silu=True, shift=x[:, :, 0, 0])
    except failures.KernelFailed as failure:
        failures.blacklist(failure)
        return f"it failed at {failure.reason}"
    return None
