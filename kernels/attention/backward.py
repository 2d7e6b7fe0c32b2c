"""The backward kernels of attention and their launch.

With s = q k^T / sqrt(D), p = softmax(s) and the gradient do of o = p v:
  dv = p^T do            dp = do v^T           delta = sum over channels of o do
  ds = p (dp - delta)    dq = ds k / sqrt(D)   dk = ds^T q / sqrt(D)
The scores are computed again; the forward pass kept lse2 = log2 sum_j exp(s_j) of each query, from
which p = 2^(s log2(e) - lse2). Three kernels run in turn: `delta_kernel`, `dkv_kernel` for dk and
dv, `dq_kernel`. A program of dkv_kernel has a block of keys and loops over all queries, one of
dq_kernel has a block of queries and loops over all keys.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..launch import device_guard
from .blocks import LOG2E, dot, grid, load_rows, store_rows, strides
from .tiling import configuration, split_head


@triton.jit
def delta_kernel(
    o, do, delta,
    sob, sot, soh, sod, sdob, sdot, sdoh, sdod,
    H, Tq,
    UNIT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Compute delta, the sum of o * do over channels, which the softmax's gradient needs.

    One program has M queries of one sample and head. o, the output of attention, and do, its
    gradient, are (B, Tq, H, D); delta is (B, H, Tq), fp32. sob, sot, soh, sod: strides of o by
    batch, token, head and channel, the first three divided by UNIT; likewise sdob to sdod
    for do. H, Tq, D: heads, queries, head size. DP: D rounded up to a power of two.
    """
    # Program i has block i % blocks of the queries of (sample, head) bh = i // blocks.
    blocks = tl.cdiv(Tq, M)
    bh = tl.program_id(0) // blocks
    o_m = (tl.program_id(0) % blocks) * M + tl.arange(0, M)
    o_d = tl.arange(0, DP)
    o_b, o_h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    # delta_i = sum_d o_id do_id
    o += (o_b * sob + o_h * soh) * UNIT
    b_o = load_rows(o, o_m, o_d, sot, sod, Tq, UNIT, D, DP <= D)
    do += (o_b * sdob + o_h * sdoh) * UNIT
    b_do = load_rows(do, o_m, o_d, sdot, sdod, Tq, UNIT, D, DP <= D)
    b_delta = tl.sum(b_o.to(tl.float32) * b_do.to(tl.float32), 1)
    tl.store(delta + bh.to(tl.int64) * Tq + o_m, b_delta, mask=o_m < Tq)


@triton.jit
def dkv_kernel(
    q, k, v, do, lse2, delta, dk, dv,
    sqb, sqt, sqh, sqd, skb, skt, skh, skd, svb, svt, svh, svd, sdob, sdot, sdoh, sdod,
    sdkb, sdkt, sdkh, sdkd, sdvb, sdvt, sdvh, sdvd,
    H, Tq, Tk,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Compute dk and dv for N keys of one sample and head, in a loop over all queries, M at a time.

      dv = sum over queries of p^T do        dk = sum over queries of ds^T q / sqrt(D)
      p = 2^(s log2(e) - lse2)               ds = p (do v^T - delta)
    s = q k^T / sqrt(D), here as transposed blocks [N, M]; lse2 (B, H, Tq) is from the forward
    kernel, delta (B, H, Tq) from `delta_kernel`. sqb, sqt, sqh, sqd: strides of q by batch, token,
    head and channel, the first three divided by UNIT; likewise for the other tensors. H, Tq,
    Tk, D: heads, queries, keys, head size. D0, D1: powers of two that cover D together; D1 may be
    0.
    """
    # Program i has block i % blocks of the keys of (sample, head) bh = i // blocks.
    blocks = tl.cdiv(Tk, N)
    bh = tl.program_id(0) // blocks
    o_n = (tl.program_id(0) % blocks) * N + tl.arange(0, N)
    o_m, o_0 = tl.arange(0, M), tl.arange(0, D0)
    o_b, o_h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    q += (o_b * sqb + o_h * sqh) * UNIT
    k += (o_b * skb + o_h * skh) * UNIT
    v += (o_b * svb + o_h * svh) * UNIT
    do += (o_b * sdob + o_h * sdoh) * UNIT
    dk += (o_b * sdkb + o_h * sdkh) * UNIT
    dv += (o_b * sdvb + o_h * sdvh) * UNIT
    lse2 += bh.to(tl.int64) * Tq
    delta += bh.to(tl.int64) * Tq

    # The block's keys and values, and the sums over queries: b_dk = ds^T q, b_dv = p^T do.
    b_k0 = load_rows(k, o_n, o_0, skt, skd, Tk, UNIT, D, D0 <= D)  # [N, D0]
    b_v0 = load_rows(v, o_n, o_0, svt, svd, Tk, UNIT, D, D0 <= D)
    b_dk0, b_dv0 = tl.zeros([N, D0], tl.float32), tl.zeros([N, D0], tl.float32)
    if D1 > 0:
        o_1 = D0 + tl.arange(0, D1)
        b_k1 = load_rows(k, o_n, o_1, skt, skd, Tk, UNIT, D, D0 + D1 <= D)
        b_v1 = load_rows(v, o_n, o_1, svt, svd, Tk, UNIT, D, D0 + D1 <= D)
        b_dk1, b_dv1 = tl.zeros([N, D1], tl.float32), tl.zeros([N, D1], tl.float32)
    scale: tl.constexpr = LOG2E / D**0.5

    for start in range(0, Tq, M):
        # b_s = k q^T, b_dp = v do^T, [N, M]; transposed, like b_p and b_ds
        o_q = start + o_m
        b_q0 = load_rows(q, o_q, o_0, sqt, sqd, Tq, UNIT, D, D0 <= D)  # [M, D0]
        b_do0 = load_rows(do, o_q, o_0, sdot, sdod, Tq, UNIT, D, D0 <= D)
        b_s = dot(b_k0, tl.trans(b_q0), tl.zeros([N, M], tl.float32))
        b_dp = dot(b_v0, tl.trans(b_do0), tl.zeros([N, M], tl.float32))
        if D1 > 0:
            b_q1 = load_rows(q, o_q, o_1, sqt, sqd, Tq, UNIT, D, D0 + D1 <= D)
            b_do1 = load_rows(do, o_q, o_1, sdot, sdod, Tq, UNIT, D, D0 + D1 <= D)
            b_s = dot(b_k1, tl.trans(b_q1), b_s)
            b_dp = dot(b_v1, tl.trans(b_do1), b_dp)
        # p = 2^(b_s scale - lse2), ds = p (dp - delta), scale = log2(e) / sqrt(D); past the last
        # query lse2 = inf makes p 0
        b_lse2 = tl.load(lse2 + o_q, mask=o_q < Tq, other=float("inf"))
        b_delta = tl.load(delta + o_q, mask=o_q < Tq, other=0.0)
        b_p = tl.exp2(b_s * scale - b_lse2[None, :])  # [N, M]
        b_ds = (b_p * (b_dp - b_delta[None, :])).to(q.dtype.element_ty)
        # dv = dv + p^T do, dk = dk + ds^T q (b_p and b_ds are p^T and ds^T)
        b_p = b_p.to(q.dtype.element_ty)
        b_dv0 = dot(b_p, b_do0, b_dv0)
        b_dk0 = dot(b_ds, b_q0, b_dk0)
        if D1 > 0:
            b_dv1 = dot(b_p, b_do1, b_dv1)
            b_dk1 = dot(b_ds, b_q1, b_dk1)

    # s = q k^T / sqrt(D), so dk is still to be divided by sqrt(D)
    softmax_scale: tl.constexpr = 1 / D**0.5
    store_rows(dk, o_n, o_0, sdkt, sdkd, Tk, UNIT, D, D0 <= D, b_dk0 * softmax_scale)
    store_rows(dv, o_n, o_0, sdvt, sdvd, Tk, UNIT, D, D0 <= D, b_dv0)
    if D1 > 0:
        store_rows(dk, o_n, o_1, sdkt, sdkd, Tk, UNIT, D, D0 + D1 <= D, b_dk1 * softmax_scale)
        store_rows(dv, o_n, o_1, sdvt, sdvd, Tk, UNIT, D, D0 + D1 <= D, b_dv1)


@triton.jit
def dq_kernel(
    q, k, v, do, lse2, delta, dq,
    sqb, sqt, sqh, sqd, skb, skt, skh, skd, svb, svt, svh, svd, sdob, sdot, sdoh, sdod,
    sdqb, sdqt, sdqh, sdqd,
    H, Tq, Tk,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Compute dq for M queries of one sample and head, in a loop over all keys, N at a time.

      dq = sum over keys of ds k / sqrt(D)   ds = p (do v^T - delta)   p = 2^(s log2(e) - lse2)
    s = q k^T / sqrt(D); lse2 (B, H, Tq) is from the forward kernel, delta (B, H, Tq) from
    `delta_kernel`. sqb, sqt, sqh, sqd: strides of q by batch, token, head and channel, the first
    three divided by UNIT; likewise for the other tensors. H, Tq, Tk, D: heads, queries,
    keys, head size. D0, D1: powers of two that cover D together; D1 may be 0. EVEN: N divides Tk.
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
    do += (o_b * sdob + o_h * sdoh) * UNIT
    dq += (o_b * sdqb + o_h * sdqh) * UNIT

    # The block's queries with their do, lse2 and delta, and the sum over keys: b_dq = ds k.
    b_q0 = load_rows(q, o_m, o_0, sqt, sqd, Tq, UNIT, D, D0 <= D)  # [M, D0]
    b_do0 = load_rows(do, o_m, o_0, sdot, sdod, Tq, UNIT, D, D0 <= D)
    b_dq0 = tl.zeros([M, D0], tl.float32)
    if D1 > 0:
        o_1 = D0 + tl.arange(0, D1)
        b_q1 = load_rows(q, o_m, o_1, sqt, sqd, Tq, UNIT, D, D0 + D1 <= D)
        b_do1 = load_rows(do, o_m, o_1, sdot, sdod, Tq, UNIT, D, D0 + D1 <= D)
        b_dq1 = tl.zeros([M, D1], tl.float32)
    o_row = bh.to(tl.int64) * Tq + o_m
    b_lse2 = tl.load(lse2 + o_row, mask=o_m < Tq, other=float("inf"))
    b_delta = tl.load(delta + o_row, mask=o_m < Tq, other=0.0)
    scale: tl.constexpr = LOG2E / D**0.5

    for start in range(0, Tk, N):
        # b_s = q k^T, b_dp = do v^T, [M, N]
        o_k = start + o_n
        b_k0 = load_rows(k, o_k, o_0, skt, skd, Tk, UNIT, D, D0 <= D)  # [N, D0]
        b_v0 = load_rows(v, o_k, o_0, svt, svd, Tk, UNIT, D, D0 <= D)
        b_s = dot(b_q0, tl.trans(b_k0), tl.zeros([M, N], tl.float32))
        b_dp = dot(b_do0, tl.trans(b_v0), tl.zeros([M, N], tl.float32))
        if D1 > 0:
            b_k1 = load_rows(k, o_k, o_1, skt, skd, Tk, UNIT, D, D0 + D1 <= D)
            b_v1 = load_rows(v, o_k, o_1, svt, svd, Tk, UNIT, D, D0 + D1 <= D)
            b_s = dot(b_q1, tl.trans(b_k1), b_s)
            b_dp = dot(b_do1, tl.trans(b_v1), b_dp)
        # p = 2^(b_s scale - lse2), 0 past the last key; ds = p (dp - delta),
        # scale = log2(e) / sqrt(D)
        b_p = tl.exp2(b_s * scale - b_lse2[:, None])  # [M, N]
        if not EVEN:
            b_p = tl.where(o_k[None, :] < Tk, b_p, 0.0)
        b_ds = (b_p * (b_dp - b_delta[:, None])).to(q.dtype.element_ty)
        # dq = dq + ds k
        b_dq0 = dot(b_ds, b_k0, b_dq0)
        if D1 > 0:
            b_dq1 = dot(b_ds, b_k1, b_dq1)

    # s = q k^T / sqrt(D), so dq is still to be divided by sqrt(D)
    softmax_scale: tl.constexpr = 1 / D**0.5
    store_rows(dq, o_m, o_0, sdqt, sdqd, Tq, UNIT, D, D0 <= D, b_dq0 * softmax_scale)
    if D1 > 0:
        store_rows(dq, o_m, o_1, sdqt, sdqd, Tq, UNIT, D, D0 + D1 <= D, b_dq1 * softmax_scale)


def launch_backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse2: torch.Tensor,
    do: torch.Tensor,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
) -> None:
    """Compute attention's gradients with three kernels and write them to dq, dk and dv.

    o (B, Tq, H, D), the output, and lse2 (B, H, Tq), log2 of the softmax's denominators, are from
    the forward kernel; do is the gradient of o. dq, dk and dv are shaped like q, k and v. None of
    the tensors is empty. lse2 is contiguous; the others may have any strides.
    """
    (_, tq, h, d), tk = q.shape, k.shape[1]
    with device_guard(q):
        delta = torch.empty_like(lse2)
        padded = triton.next_power_of_2(d)
        rows = max(16, 4096 // padded)
        unit, steps = strides(o, do)
        delta_kernel[grid(triton.cdiv(tq, rows), q)](
            o, do, delta, *steps, h, tq, UNIT=unit, D=d, DP=padded, M=rows, num_warps=4
        )
        d0, d1 = split_head(d)
        config = configuration("dkv", q, tk)
        unit, steps = strides(q, k, v, do, dk, dv)
        dkv_kernel[grid(triton.cdiv(tk, config["N"]), q)](
            q, k, v, do, lse2, delta, dk, dv, *steps, h, tq, tk,
            UNIT=unit, D=d, D0=d0, D1=d1, **config,
        )  # fmt: skip
        config = configuration("dq", q, tk)
        unit, steps = strides(q, k, v, do, dq)
        dq_kernel[grid(triton.cdiv(tq, config["M"]), q)](
            q, k, v, do, lse2, delta, dq, *steps, h, tq, tk,
            UNIT=unit, D=d, D0=d0, D1=d1, EVEN=tk % config["N"] == 0, **config,
        )  # fmt: skip
