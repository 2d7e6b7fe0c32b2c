"""The attention backend "triton": this project's kernels, which can also return attention maps."""

from __future__ import annotations

from functools import lru_cache

import torch

from . import failures, trust

MAX_KEYS = 128  # the most keys that `run_with_maps` takes


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why the kernels cannot run on `device`, or None if they can.

    head_size: channels per head; None leaves it unchecked. On a GPU they run only where
    `kernels.check` found them right; interpreted, one small call of each is tried the first time.
    """
    try:
        from kernels import attention
    except ImportError:
        return "triton is not installed here."
    reason = attention.unsupported(device, dtype, head_size)
    if reason or device.type != "cuda":
        return reason or _probe(str(device), dtype)
    return trust.problem(device, [_place("forward", dtype, head_size)])


def backward_unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why gradients cannot be computed on `device`, or None if they can.

    For a backend for which `unsupported` returned None.
    """
    return trust.problem(device, [_place(kind, dtype, head_size) for kind in ("dkv", "dq")])


def maps_supported(q: torch.Tensor) -> bool:
    """Return whether `run_with_maps` may run for q (B, Tq, H, D)."""
    where = f"word_attention/d{q.shape[-1]}/{str(q.dtype).removeprefix('torch.')}"
    return trust.problem(q.device, [where]) is None


def _place(kind: str, dtype: torch.dtype, head_size: int | None) -> str:
    """Return the place of a kernel in a verdict, with * for a head size that is not known."""
    size = "*" if head_size is None else head_size
    return f"attention/{kind}/d{size}/{str(dtype).removeprefix('torch.')}"


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return attention of q (B, Tq, H, D) to k and v (B, Tk, H, D), shaped like q."""
    from kernels.attention import attention

    return attention(q, k, v)


def run_with_maps(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention, shaped like q, and its weights averaged over heads, (B, Tq, Tk), fp32.

    q (B, Tq, H, D), k and v (B, Tk, H, D) with Tk at most MAX_KEYS. The weights have no gradient.
    """
    from kernels.word_attention import word_attention

    return word_attention(q, k, v)


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """Call each kernel once on small tensors; return None if they work, else the reason; cached.

    A kernel that fails is blacklisted, with a warning.
    """
    from kernels.attention import attention
    from kernels.word_attention import word_attention

    q = torch.zeros((1, 16, 1, 40), device=device, dtype=dtype)
    try:
        with failures.wrap_kernel_errors("attention", "triton", q):
            attention(q, q, q)
            word_attention(q, q, q)
    except failures.KernelFailed as failure:
        failures.blacklist(failure)
        return f"it failed at {failure.reason}"
    return None
