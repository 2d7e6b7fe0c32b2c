"""What the attention kernels share: loading, storing and multiplying blocks of rows.

Names in the kernels:
  b_, p_, o_, m_       a block in registers, pointers, offsets, a mask
  sqb, sqt, sqh, sqd   strides of q by batch, token, head and channel; likewise for k, v, o, ...
  UNIT                 all strides but a channel's are divided by UNIT
  H, Tq, Tk, D         heads, queries, keys, head size
  D0, D1               a head is covered by D0 columns and, unless D1 is 0, D1 more
  M, N                 queries and keys of a block
A UNIT of 8 tells the compiler that rows are aligned, so it can move 16 bytes at a time; from a head
size of 40 or 72 it could not know that.
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
    """Load and return a block [rows, columns] of a matrix x (T, D), such as one head's queries.

    p_base   pointer to x[0, 0]
    o_t      indices of the rows to load; rows from T on are zeros
    o_d      indices of the columns to load; columns from D on are zeros
    st, sd   strides: x[t, d] is at p_base + t * st * UNIT + d * sd. UNIT (1 or 8) is a known
             divisor of the distance between rows, so that the compiler can load 16 bytes at once
    FULL     every column of o_d is below D, so columns need no mask
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
    """Store the block b_x [rows, columns] to rows o_t and columns o_d of a matrix x (T, D).

    The values are converted to x's dtype; nothing is written to rows or columns outside x.
    p_base   pointer to x[0, 0]
    st, sd   strides: x[t, d] is at p_base + t * st * UNIT + d * sd. UNIT (1 or 8) is a known
             divisor of the distance between rows, so that the compiler can store 16 bytes at once
    FULL     every column of o_d is below D, so columns need no mask
    """
    o_row = o_t.to(tl.int64)[:, None] * st * UNIT  # 64 bit before it can overflow
    p = p_base + o_row + o_d.to(tl.int64)[None, :] * sd
    if FULL:
        tl.store(p, b_x.to(p_base.dtype.element_ty), mask=o_t[:, None] < T)
    else:
        m_x = (o_t[:, None] < T) & (o_d[None, :] < D)
        tl.store(p, b_x.to(p_base.dtype.element_ty), mask=m_x)


@triton.jit
def dot(b_x, b_y, b_sum):
    """Return the matrix product b_x b_y plus b_sum (fp32) in a kernel.

    Inputs in fp32 are multiplied at full precision, not as TF32.
    """
    if INTERPRETED:  # the interpreter multiplies the bits of bf16 as if they were integers
        return tl.dot(b_x.to(tl.float32), b_y.to(tl.float32), b_sum, input_precision="ieee")
    return tl.dot(b_x, b_y, b_sum, input_precision="ieee")


def strides(*tensors: torch.Tensor) -> tuple[int, list[int]]:
    """Return UNIT and the strides of tensors (B, T, H, D), as the attention kernels take them.

    UNIT is 8 if 8 divides every stride of batch, token and head, which tells the compiler that rows
    are aligned; else 1. The list has four strides for each tensor: of batch, token and head,
    divided by UNIT and 0 for a dimension of size 1, and of the channel, not divided.
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
    """Return the launch grid of a kernel that takes `blocks` programs for each sample and head.

    q (B, T, H, D) tells the numbers of samples and heads.
    """
    return (blocks * q.shape[0] * q.shape[2],)
