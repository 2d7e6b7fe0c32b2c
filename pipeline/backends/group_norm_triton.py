"""The GroupNorm backend "triton": this project's kernel, with timestep embedding and SiLU fused."""

from __future__ import annotations

from functools import lru_cache

import torch

from . import failures


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why the kernel cannot run on `device`, or None if it can.

    head_size is ignored. One small call is tried the first time.
    """
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
    """Return GroupNorm of x (B, C, H, W) + shift (B, C), followed by SiLU if `silu` is true.

    weight and bias are (C,). None leaves out shift, weight or bias.
    """
    from kernels.group_norm import group_norm

    return group_norm(x, groups, weight, bias, eps, silu=silu, shift=shift)


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """Call the kernel once on a small tensor; return None if it works, else the reason; cached.

    A kernel that fails is blacklisted, with a warning. On ZeroGPU nothing is tried, as there is no
    GPU yet.
    """
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
