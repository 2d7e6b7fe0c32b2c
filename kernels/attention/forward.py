"""The forward kernel of attention and its launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..launch import device_guard
from .blocks import LOG2E, dot, grid, load_rows, store_rows, strides
from .tiling import configuration, split_head


@triton.jit
def forward_kernel(
    q, k, v, o, lse2,
    sqb, sqt, sqh, sqd, skb, skt, skh, skd, svb, svt, svh, svd, sob, sot, soh, sod,
    H, Tq, Tk,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Compute M rows of o (B, Tq, H, D) for one sample and head, and their lse2 (B, H, Tq).

    With s = q k^T / sqrt(D) in units of log2(e), for each row:
        o = sum_j 2^(s_j - max) v_j / sum_j 2^(s_j - max)
        lse2 = log2 sum_j 2^s_j = max + log2 sum_j 2^(s_j - max)
    The maximum is a running one: where a block of keys raises it, what was summed so far is
    multiplied by alpha = 2^(max - max_new).
    """
    blocks = tl.cdiv(Tq, M)
    bh = tl.program_id(0) // blocks
    o_m = (tl.program_id(0) % blocks) * M + tl.arange(0, M)
    o_n, o_0 = tl.arange(0, N), tl.arange(0, D0)
    o_b, o_h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    q += (o_b * sqb + o_h * sqh) * UNIT
    k += (o_b * skb + o_h * skh) * UNIT
    v += (o_b * svb + o_h * svh) * UNIT
    o += (o_b * sob + o_h * soh) * UNIT

    b_q0 = load_rows(q, o_m, o_0, sqt, sqd, Tq, UNIT, D, D0 <= D)  # [M, D0]
    b_o0 = tl.zeros([M, D0], tl.float32)  # sum of b_p v, not yet divided by b_sum
    if D1 > 0:
        o_1 = D0 + tl.arange(0, D1)
        b_q1 = load_rows(q, o_m, o_1, sqt, sqd, Tq, UNIT, D, D0 + D1 <= D)
        b_o1 = tl.zeros([M, D1], tl.float32)
    b_max = tl.full([M], -float("inf"), tl.float32)
    b_sum = tl.zeros([M], tl.float32)
    scale: tl.constexpr = LOG2E / D**0.5

    for start in range(0, Tk, N):
        o_k = start + o_n
        b_k0 = load_rows(k, o_k, o_0, skt, skd, Tk, UNIT, D, D0 <= D)  # [N, D0]
        b_s = dot(b_q0, tl.trans(b_k0), tl.zeros([M, N], tl.float32))  # q k^T, [M, N]
        if D1 > 0:
            b_k1 = load_rows(k, o_k, o_1, skt, skd, Tk, UNIT, D, D0 + D1 <= D)
            b_s = dot(b_q1, tl.trans(b_k1), b_s)
        if not EVEN:
            b_s = tl.where(o_k[None, :] < Tk, b_s, -float("inf"))
        b_max_new = tl.maximum(b_max, tl.max(b_s, 1) * scale)
        b_p = tl.exp2(b_s * scale - b_max_new[:, None])  # [M, N]
        alpha = tl.exp2(b_max - b_max_new)  # [M]
        b_sum = b_sum * alpha + tl.sum(b_p, 1)
        b_max = b_max_new
        b_p = b_p.to(v.dtype.element_ty)
        b_v0 = load_rows(v, o_k, o_0, svt, svd, Tk, UNIT, D, D0 <= D)  # [N, D0]
        b_o0 = dot(b_p, b_v0, b_o0 * alpha[:, None])
        if D1 > 0:
            b_v1 = load_rows(v, o_k, o_1, svt, svd, Tk, UNIT, D, D0 + D1 <= D)
            b_o1 = dot(b_p, b_v1, b_o1 * alpha[:, None])

    store_rows(o, o_m, o_0, sot, sod, Tq, UNIT, D, D0 <= D, b_o0 / b_sum[:, None])
    if D1 > 0:
        store_rows(o, o_m, o_1, sot, sod, Tq, UNIT, D, D0 + D1 <= D, b_o1 / b_sum[:, None])
    tl.store(lse2 + bh.to(tl.int64) * Tq + o_m, b_max + tl.log2(b_sum), mask=o_m < Tq)


def launch_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, o: torch.Tensor, lse2: torch.Tensor
) -> None:
    """Write o and lse2 for q (B, Tq, H, D) and k, v (B, Tk, H, D), none of them empty."""
    (_, tq, h, d), tk = q.shape, k.shape[1]
    config = configuration("forward", q, tk)
    d0, d1 = split_head(d)
    unit, steps = strides(q, k, v, o)
    with device_guard(q):
        forward_kernel[grid(triton.cdiv(tq, config["M"]), q)](
            q, k, v, o, lse2, *steps, h, tq, tk,
            UNIT=unit, D=d, D0=d0, D1=d1, EVEN=tk % config["N"] == 0, **config,
        )  # fmt: skip
