"""The GroupNorm backend "triton": this project's kernel, with timestep embedding and SiLU fused."""

from __future__ import annotations

from functools import lru_cache

import torch

from . import failures, trust


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why our GroupNorm kernel cannot run on `device`, or None if it can.

    head_size is ignored. On a GPU it runs only where `python -m kernels.check` found it right. If
    Triton interprets kernels on a CPU, one small call is tried the first time.
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
    """Return in one sentence why our GroupNorm kernels can't compute gradients here, or None.

    None: they can, as `python -m kernels.check` found them right on `device`. Ask only where
    `unsupported` returned None for the same device and dtype; head_size is ignored.
    """
    return trust.problem(device, _places("backward", dtype))


def _places(mode: str, dtype: torch.dtype) -> list[str]:
    """Return the names under which `kernels.check` stores results, one for each memory layout.

    For mode "forward" in float16: "group_norm/forward/NCHW/float16" and the same with NHWC;
    likewise for "backward".
    """
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
    """Return GroupNorm of x (B, C, H, W) + shift (B, C), then SiLU if `silu`, by our kernel.

    weight and bias are (C,). None leaves out shift, weight or bias. PyTorch computes it instead if
    `python -m kernels.check` did not find the kernel right on this GPU in x's dtype: an autoencoder
    may run in float32 where only float16 was checked.
    """
    from kernels.group_norm import group_norm, reference

    if trust.problem(x.device, _places("forward", x.dtype)):
        return reference(x, groups, weight, bias, eps, silu=silu, shift=shift)
    return group_norm(x, groups, weight, bias, eps, silu=silu, shift=shift)


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """Try our GroupNorm kernel on a small tensor; return None if it works, else the reason; cached.

    If it fails, the backend "triton" is not used again in this process, and a warning is logged.
    """
    x = torch.zeros((1, 8, 4, 4), device=device, dtype=dtype)
    try:
        with failures.wrap_kernel_errors("GroupNorm", "triton", x):
            run(x, 2, silu=True, shift=x[:, :, 0, 0])
    except failures.KernelFailed as failure:
        failures.blacklist(failure)
        return f"it failed at {failure.reason}"
    return None
