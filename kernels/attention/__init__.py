"""Scaled dot-product attention in Triton, forward and backward, for Stable Diffusion's shapes.

FlashAttention-2 (Dao, arXiv 2307.08691): a program computes a block of queries and reads the keys
block by block, with a running maximum and a running sum of the softmax, so the matrix of scores
(Tq, Tk) is never stored. What differs from the usual kernels:

- A head size that is no power of two is split in two (40 = 32 + 16, 80 = 64 + 16, 160 = 128 + 32)
  where that reads and multiplies less than padding to the next power of two.
- Nothing is copied: q, k, v and their gradients may have any strides.
- In the backward pass each value of a gradient is written by one program, which sums in a fixed
  order, without atomics: the result has the same bits every time.
- Row offsets are 64 bit: a tensor may have more than 2^31 elements.

The kernels are in `forward` and `backward`, their block sizes in `tiling`, plain PyTorch in
`reference`. This module has the public function `attention` and the custom ops that make it work
with autograd and torch.compile.
"""

from __future__ import annotations

from typing import Any

import torch

from ..launch import DTYPES, check_tensors, device_problem, dtype_name, dtype_names
from .backward import launch_backward
from .forward import launch_forward
from .reference import reference

__all__ = ["attention", "attention_backward_op", "attention_op", "reference", "unsupported"]

MAX_HEAD = 256
MAX_LENGTH = 2**31 - 1024  # token numbers are 32 bit in the kernels


def check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raise ValueError, with a message of one sentence, unless `attention` takes these tensors.

    It takes q (B, Tq, H, D), k and v (B, Tk, H, D) of one supported dtype on one device that can
    run Triton, with D a multiple of 8 up to 256.
    """
    check_tensors(q=q, k=k, v=v)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be (B, T, H, D).")
    b, _, h, d = q.shape
    if d % 8 or not 8 <= d <= MAX_HEAD:
        raise ValueError(f"q has head size D = {d}; it must be a multiple of 8 up to {MAX_HEAD}.")
    tk = k.shape[1]
    for name, t in (("q", q.shape[1]), ("k", tk)):
        if t > MAX_LENGTH:
            raise ValueError(f"{name} has {t} tokens; at most {MAX_LENGTH} are allowed.")
    for name, x in (("k", k), ("v", v)):
        if x.shape != (b, tk, h, d):
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}; with q {tuple(q.shape)} it must be "
                f"({b}, {tk}, {h}, {d})."
            )


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None, *, mask: bool = False
) -> str | None:
    """Return in one sentence why the attention kernel can't run on `device`, or None if it can.

    head_size: size D of a head; None skips its check. mask: whether the caller needs an attention
    mask, which the kernel does not support.
    """
    if dtype not in DTYPES:
        return f"the attention kernel takes {dtype_names()}, not {dtype_name(dtype)}."
    problem = device_problem(device, dtype)
    if problem:
        return problem
    if mask:
        return "the attention kernel takes no mask."
    if head_size is not None and (head_size % 8 or not 8 <= head_size <= MAX_HEAD):
        return (
            f"the attention kernel takes head sizes that are multiples of 8 up to {MAX_HEAD}, "
            f"not {head_size}."
        )
    return None


@torch.library.custom_op("glassbox::attention", mutates_args=())
def attention_op(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return softmax(q k^T / sqrt(D)) v and what the backward pass needs of the softmax.

    q (B, Tq, H, D), k and v (B, Tk, H, D), which are not checked. Returns o (B, Tq, H, D),
    contiguous, in the dtype of q, and lse2 (B, H, Tq), fp32: for each query, log2 of the softmax's
    denominator sum_j exp(q k_j / sqrt(D)). If Tk = 0, o is 0 and lse2 infinity.
    """
    b, tq, h, d = q.shape
    o = torch.empty((b, tq, h, d), dtype=q.dtype, device=q.device)
    lse2 = torch.empty((b, h, tq), dtype=torch.float32, device=q.device)
    if o.numel() == 0 or k.shape[1] == 0:
        return o.zero_(), lse2.fill_(float("inf"))
    launch_forward(q, k, v, o, lse2)
    return o, lse2


@attention_op.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    b, tq, h, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((b, h, tq), dtype=torch.float32)


@torch.library.custom_op("glassbox::attention_backward", mutates_args=())
def attention_backward_op(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse2: torch.Tensor,
    do: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return dq, dk and dv, the gradients of softmax(q k^T / sqrt(D)) v for the gradient `do`.

    q, do (B, Tq, H, D), k and v (B, Tk, H, D) are not checked. o and lse2 are what `attention_op`
    returned for q, k and v: the output and, for each query, log2 of the softmax's denominator. The
    gradients are contiguous and shaped like q, k and v.
    """
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if q.numel() == 0 or k.numel() == 0:
        return dq.zero_(), dk.zero_(), dv.zero_()
    launch_backward(q, k, v, o, lse2, do, dq, dk, dv)
    return dq, dk, dv


@attention_backward_op.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse2: torch.Tensor,
    do: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, do: torch.Tensor, _: Any) -> tuple[torch.Tensor, ...]:
    q, k, v, o, lse2 = ctx.saved_tensors
    return attention_backward_op(q, k, v, o, lse2, do)


attention_op.register_autograd(_backward, setup_context=_save)


def autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the tensors cast to autocast's dtype if autocast is on for their device, as SDPA does.

    The tensors are returned as they are if autocast is off, or if any of them has a dtype other
    than fp16, bf16 and fp32.
    """
    if not all(isinstance(x, torch.Tensor) and x.dtype in DTYPES for x in tensors):
        return tensors  # `check` raises an error that names the wrong one
    kind = tensors[0].device.type
    if kind not in ("cpu", "cuda") or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x.to(dtype) for x in tensors)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(D)) v without storing the matrix of scores; differentiable.

    q (B, Tq, H, D), k and v (B, Tk, H, D), any strides, of one dtype (fp16, bf16, fp32) on one CUDA
    or ROCm device; D a multiple of 8 up to 256. Returns (B, Tq, H, D), contiguous; zeros if Tk = 0.
    Softmax and sums are fp32; fp32 inputs are multiplied at full precision, not as TF32. Results
    and gradients have the same bits every time. Raises ValueError for any other input;
    `unsupported` tells beforehand.

    FlashAttention-2: Dao, arXiv 2307.08691.
    """
    q, k, v = autocast(q, k, v)
    check(q, k, v)
    return attention_op(q, k, v)[0]
