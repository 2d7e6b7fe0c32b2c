"""This project's own attention kernels, with word maps in the same launch."""

from __future__ import annotations

from functools import lru_cache

import torch

from . import failures

MAX_KEYS = 128  # of `run_with_maps`


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return why they cannot run there, in a sentence; None where they can."""
    try:
        from kernels import attention
    except ImportError:
        return "triton is not installed here."
    return attention.unsupported(device, dtype, head_size) or _probe(str(device), dtype)


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Compute attention, (B, Tq, H, D)."""
    from kernels.attention import attention

    return attention(q, k, v)


def run_with_maps(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention and its weights averaged over heads, (B, Tq, Tk) fp32; no gradient."""
    from kernels.word_attention import word_attention

    return word_attention(q, k, v)


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """Try one tiny call of each kernel; where one fails, warn and return the reason."""
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
