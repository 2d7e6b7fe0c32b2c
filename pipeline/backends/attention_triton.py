"""The attention backend "triton": this project's kernels, which can also return attention maps."""

from __future__ import annotations

from functools import lru_cache

import torch

from . import failures

MAX_KEYS = 128  # the most keys that `run_with_maps` takes


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why the kernels cannot run on `device`, or None if they can.

    head_size: channels per head; None leaves it unchecked. One small call of each kernel is tried
    the first time.
    """
    try:
        from kernels import attention
    except ImportError:
        return "triton is not installed here."
    return attention.unsupported(device, dtype, head_size) or _probe(str(device), dtype)


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

    A kernel that fails is blacklisted, with a warning. On ZeroGPU nothing is tried, as there is no
    GPU yet.
    """
    from kernels.attention import attention
    from kernels.word_attention import word_attention

    if failures.ON_ZERO_GPU:
        return None
    q = torch.zeros((1, 16, 1, 40), device=device, dtype=dtype)
    try:
        with failures.wrap_kernel_errors("attention", "triton", q):
            attention(q, q, q)
            word_attention(q, q, q)
    except failures.KernelFailed as failure:
        failures.blacklist(failure)
        return f"it failed at {failure.reason}"
    return None
