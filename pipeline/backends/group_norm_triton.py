"""The GroupNorm backend "triton": this project's kernel, with timestep embedding and SiLU fused."""

from __future__ import annotations

from functools import lru_cache

import torch

from . import failures, trust


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why the kernel cannot run on `device`, or None if it can.

    head_size is ignored. On a GPU it runs only where `kernels.check` found it right; interpreted,
    one small call is tried the first time.
    """
    try:
        from kernels import group_norm
    except ImportError:
        return "triton is not installed here."
    reason = group_norm.unsupported(device, dtype)
    if reason or device.type != "cuda":
        return reason or _probe(str(device), dtype)
    return trust.problem(device, _places("forward", dtype))


def backward_unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why gradients cannot be computed on `device`, or None if they can.

    For a device and dtype for which `unsupported` returned None; head_size is ignored.
    """
    return trust.problem(device, _places("backward", dtype))


def _places(mode: str, dtype: torch.dtype) -> list[str]:
    """Return the places of a mode, "forward" or "backward", in a verdict: one for each layout."""
    name = str(dtype).removeprefix("torch.")
    return [f"group_norm/{mode}/{layout}/{name}" for layout in ("NCHW", "NHWC")]


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

    weight and bias are (C,). None leaves out shift, weight or bias. A dtype in which the kernel is
    not trusted, as an autoencoder's that was raised to float32, is computed by PyTorch.
    """
    from kernels.group_norm import group_norm, reference

    if trust.problem(x.device, _places("forward", x.dtype)):
        return reference(x, groups, weight, bias, eps, silu=silu, shift=shift)
    return group_norm(x, groups, weight, bias, eps, silu=silu, shift=shift)


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """Call the kernel once on a small tensor; return None if it works, else the reason; cached.

    A kernel that fails is blacklisted, with a warning.
    """
    x = torch.zeros((1, 8, 4, 4), device=device, dtype=dtype)
    try:
        with failures.wrap_kernel_errors("GroupNorm", "triton", x):
            run(x, 2, silu=True, shift=x[:, :, 0, 0])
    except failures.KernelFailed as failure:
        failures.blacklist(failure)
        return f"it failed at {failure.reason}"
    return None
