"""What the attention kernels share: loading, storing and multiplying blocks of rows.

Names in the kernels: b_ block in registers, p_ pointers, o_ offsets, m_ mask; s?b, s?t, s?h, s?d
are the strides of batch, token, head and channel of the tensor "?". All strides but a channel's
are in units of UNIT values: a known factor of 8 lets the compiler move 16 bytes at a time where a
head size of 40 or 72 would hide that rows are aligned. A head of size D is covered by D0 columns
and, where D1 is not 0, D1 more.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .. import launch

LOG2E = tl.constexpr(1.4426950408889634)
INTERPRETED = tl.constexpr(launch.INTERPRETED)


@triton.jit
def load_rows(p_base, o_t, o_d, st, sd, T, UNIT: tl.constexpr, D: tl.constexpr, FULL: tl.constexpr):
    """Load rows o_t, of T, and columns o_d, of D, as [rows, columns]; zeros outside.

    FULL: every column of o_d is below D.
    """
    o_row = o_t.to(tl.int64)[:, None] * st * UNIT  # 64 bit before it can overflow
    p = p_base + o_row + o_d.to(tl.int64)[None, :] * sd
    if FULL:
        return tl.load(p, mask=o_t[:, None] < T, other=0.0)
    return tl.load(p, mask=(o_t[:, None] < T) & (o_d[None, :] < D), other=0.0)


@triton.jit
def store_rows(
    p_base, o_t, o_d, st, sd, T, UNIT: tl.constexpr, D: tl.constexpr, FULL: tl.constexpr, b_x
):
    """Store b_x [rows, columns] at rows o_t, of T, and columns o_d, of D, in the output's type."""
    o_row = o_t.to(tl.int64)[:, None] * st * UNIT  # 64 bit before it can overflow
    p = p_base + o_row + o_d.to(tl.int64)[None, :] * sd
    if FULL:
        tl.store(p, b_x.to(p_base.dtype.element_ty), mask=o_t[:, None] < T)
    else:
        m_x = (o_t[:, None] < T) & (o_d[None, :] < D)
        tl.store(p, b_x.to(p_base.dtype.element_ty), mask=m_x)


@triton.jit
def dot(b_x, b_y, b_sum):
    """Return b_x b_y + b_sum; fp32 operands are multiplied at full precision, not as TF32."""
    if INTERPRETED:  # the interpreter multiplies the bits of bf16 as if they were integers
        return tl.dot(b_x.to(tl.float32), b_y.to(tl.float32), b_sum, input_precision="ieee")
    return tl.dot(b_x, b_y, b_sum, input_precision="ieee")


def strides(*tensors: torch.Tensor) -> tuple[int, list[int]]:
    """Return UNIT and the strides that kernels take, four for each tensor (B, T, H, D).

    UNIT is 8 where it divides every stride of batch, token and head, else 1; those strides are
    divided by it. A dimension of size 1 counts as stride 0.
    """
    rows = [
        [s if size > 1 else 0 for s, size in zip(x.stride()[:3], x.shape[:3], strict=True)]
        for x in tensors
    ]
    unit = 8 if all(s % 8 == 0 for row in rows for s in row) else 1
    return unit, [
        n
        for x, row in zip(tensors, rows, strict=True)
        for n in (*(s // unit for s in row), x.stride(3))
    ]


def grid(blocks: int, q: torch.Tensor) -> tuple[int]:
    """Return a grid of `blocks` programs for each sample and head of q (B, T, H, D)."""
    return (blocks * q.shape[0] * q.shape[2],)
