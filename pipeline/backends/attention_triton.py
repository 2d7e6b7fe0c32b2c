"""The attention backend "triton": this project's kernels, which can also return attention maps."""

from __future__ import annotations

from functools import lru_cache

import torch

from . import failures, trust

MAX_KEYS = 128  # the most keys that `run_with_maps` takes


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why our attention kernel cannot run on `device`, or None if it can.

    head_size: channels per head; None leaves it unchecked. On a GPU it runs only where `python -m
    kernels.check` found it right. If Triton interprets kernels on a CPU, one small call is tried
    the first time.
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
    """Return in one sentence why our attention kernels can't compute gradients here, or None.

    None: they can, as `python -m kernels.check` found them right on `device`. head_size: channels
    per head; None leaves it unchecked. Ask only where `unsupported` returned None for the same
    arguments.
    """
    return trust.problem(device, [_place(kind, dtype, head_size) for kind in ("dkv", "dq")])


def maps_supported(q: torch.Tensor) -> bool:
    """Return whether our kernel for attention with maps may run for q (B, Tq, H, D).

    On a GPU it may where `python -m kernels.check` found it right for q's head size and dtype.
    """
    where = f"word_attention/d{q.shape[-1]}/{str(q.dtype).removeprefix('torch.')}"
    return trust.problem(q.device, [where]) is None


def _place(kind: str, dtype: torch.dtype, head_size: int | None) -> str:
    """Return the name under which `kernels.check` stores results: "attention/forward/d40/float16".

    kind: the kernel, "forward", "dkv" (gradients of k and v) or "dq". head_size: None stands for
    any and is written as *, "attention/forward/d*/float16".
    """
    size = "*" if head_size is None else head_size
    return f"attention/{kind}/d{size}/{str(dtype).removeprefix('torch.')}"


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return our kernel's attention of q (B, Tq, H, D) to k and v (B, Tk, H, D), shaped like q."""
    from kernels.attention import attention

    return attention(q, k, v)


def run_with_maps(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention and its weights averaged over heads, both from one kernel of ours.

    q (B, Tq, H, D), k and v (B, Tk, H, D) with Tk at most 128. The output is shaped like q, the
    weights are (B, Tq, Tk), fp32, without a gradient.
    """
    from kernels.word_attention import word_attention

    return word_attention(q, k, v)


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """Try our attention kernels on small tensors; return None if they work, else why not; cached.

    Both are called, that without and that with maps. If one fails, the backend "triton" is not used
    again in this process, and a warning is logged.
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
