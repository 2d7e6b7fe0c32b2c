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
    """Compute attention's o (B, Tq, H, D) and lse2 (B, H, Tq), M queries of a head per program.

    With s_j = q k_j log2(e) / sqrt(D), for each query:
      o = sum_j 2^(s_j - max) v_j / sum_j 2^(s_j - max)
      lse2 = log2 sum_j 2^s_j = max + log2 sum_j 2^(s_j - max)
    max is the maximum of the keys read so far, N at a time: when a block of keys raises it, the
    sums so far are multiplied by alpha = 2^(max - max_new).

    sqb, sqt, sqh, sqd: strides of q by batch, token, head and channel, the first three counted in
    UNIT values; likewise for k, v and o. H, Tq, Tk, D: heads, queries, keys, head size. D0, D1:
    powers of two that cover D together; D1 may be 0. EVEN: N divides Tk.
    """
    # Program i has block i % blocks of the queries of (sample, head) bh = i // blocks.
    blocks = tl.cdiv(Tq, M)
    bh = tl.program_id(0) // blocks
    o_m = (tl.program_id(0) % blocks) * M + tl.arange(0, M)
    o_n, o_0 = tl.arange(0, N), tl.arange(0, D0)
    o_b, o_h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    q += (o_b * sqb + o_h * sqh) * UNIT
    k += (o_b * skb + o_h * skh) * UNIT
    v += (o_b * svb + o_h * svh) * UNIT
    o += (o_b * sob + o_h * soh) * UNIT

    # The block's queries, and the sums: b_o = sum_j p_j v_j, b_sum = sum_j p_j, b_max = max_j s_j.
    b_q0 = load_rows(q, o_m, o_0, sqt, sqd, Tq, UNIT, D, D0 <= D)  # [M, D0]
    b_o0 = tl.zeros([M, D0], tl.float32)
    if D1 > 0:
        o_1 = D0 + tl.arange(0, D1)
        b_q1 = load_rows(q, o_m, o_1, sqt, sqd, Tq, UNIT, D, D0 + D1 <= D)
        b_o1 = tl.zeros([M, D1], tl.float32)
    b_max = tl.full([M], -float("inf"), tl.float32)
    b_sum = tl.zeros([M], tl.float32)
    scale: tl.constexpr = LOG2E / D**0.5

    for start in range(0, Tk, N):
        # b_s = q k^T, -inf past the last key; s = b_s scale, scale = log2(e) / sqrt(D)
        o_k = start + o_n
        b_k0 = load_rows(k, o_k, o_0, skt, skd, Tk, UNIT, D, D0 <= D)  # [N, D0]
        b_s = dot(b_q0, tl.trans(b_k0), tl.zeros([M, N], tl.float32))  # [M, N]
        if D1 > 0:
            b_k1 = load_rows(k, o_k, o_1, skt, skd, Tk, UNIT, D, D0 + D1 <= D)
            b_s = dot(b_q1, tl.trans(b_k1), b_s)
        if not EVEN:
            b_s = tl.where(o_k[None, :] < Tk, b_s, -float("inf"))
        # max_new = max(max, max_j s_j), p_j = 2^(s_j - max_new), alpha = 2^(max - max_new),
        # sum = alpha sum + sum_j p_j
        b_max_new = tl.maximum(b_max, tl.max(b_s, 1) * scale)
        b_p = tl.exp2(b_s * scale - b_max_new[:, None])  # [M, N]
        alpha = tl.exp2(b_max - b_max_new)  # [M]
        b_sum = b_sum * alpha + tl.sum(b_p, 1)
        b_max = b_max_new
        # o = alpha o + p v
        b_p = b_p.to(v.dtype.element_ty)
        b_v0 = load_rows(v, o_k, o_0, svt, svd, Tk, UNIT, D, D0 <= D)  # [N, D0]
        b_o0 = dot(b_p, b_v0, b_o0 * alpha[:, None])
        if D1 > 0:
            b_v1 = load_rows(v, o_k, o_1, svt, svd, Tk, UNIT, D, D0 + D1 <= D)
            b_o1 = dot(b_p, b_v1, b_o1 * alpha[:, None])

    # o / sum; lse2 = max + log2 sum
    store_rows(o, o_m, o_0, sot, sod, Tq, UNIT, D, D0 <= D, b_o0 / b_sum[:, None])
    if D1 > 0:
        store_rows(o, o_m, o_1, sot, sod, Tq, UNIT, D, D0 + D1 <= D, b_o1 / b_sum[:, None])
    tl.store(lse2 + bh.to(tl.int64) * Tq + o_m, b_max + tl.log2(b_sum), mask=o_m < Tq)


def launch_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, o: torch.Tensor, lse2: torch.Tensor
) -> None:
    """Run attention's forward kernel on q (B, Tq, H, D), k and v (B, Tk, H, D); write o and lse2.

    None of the tensors is empty. o, the output: (B, Tq, H, D), any strides. lse2: (B, H, Tq),
    contiguous, fp32: for each query log2 of the softmax's denominator, which the backward pass
    needs.
    """
    (_, tq, h, d), tk = q.shape, k.shape[1]
    config = configuration("forward", q, tk)
    d0, d1 = split_head(d)
    unit, steps = strides(q, k, v, o)
    with device_guard(q):
        forward_kernel[grid(triton.cdiv(tq, config["M"]), q)](
            q, k, v, o, lse2, *steps, h, tq, tk,
            UNIT=unit, D=d, D0=d0, D1=d1, EVEN=tk % config["N"] == 0, **config,
        )  # fmt: skip
