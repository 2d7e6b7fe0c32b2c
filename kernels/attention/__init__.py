"""Scaled dot product attention in Triton, forward and backward, for Stable Diffusion's shapes.

FlashAttention-2 (Dao, arXiv 2307.08691): keys are walked block by block with a running maximum and
sum, so no (Tq, Tk) matrix exists. What is particular here:

- A head size that is no power of two is split in two (40 = 32 + 16, 80 = 64 + 16, 160 = 128 + 32)
  where that reads and multiplies less than padding to the next power of two.
- No operand is copied: q, k, v and their gradients may have any strides.
- The backward pass writes every gradient from exactly one program, in one order: no atomics, the
  same bits every time.
- Row offsets are 64 bit: a tensor may have more than 2^31 elements.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..launch import (
    DTYPES,
    INTERPRETED,
    bits,
    check_tensors,
    device_problem,
    multiprocessors,
    on_device_of,
    short,
    tuned,
    types,
)

LOG2E = tl.constexpr(1.4426950408889634)
BY_HAND = tl.constexpr(INTERPRETED)
MAX_HEAD = 256
MAX_LENGTH = 2**31 - 1024  # row numbers are 32 bit


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v in plain PyTorch, in the type of its inputs."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


# ---- shapes and configurations ------------------------------------------------------------------


def split_head(d: int) -> tuple[int, int]:
    """Head size `d` as two powers of two of at least 16 that cover it; the second may be 0.

    The matrix unit takes nothing below 16. Two parts only where their sum is below the next power.
    """
    whole = max(16, triton.next_power_of_2(d))
    low = whole // 2
    if low < 16 or d <= low:
        return whole, 0
    high = max(16, triton.next_power_of_2(d - low))
    return (low, high) if low + high < whole else (whole, 0)


def heuristic(
    kind: str,
    d: int,
    tq: int,
    tk: int,
    dtype: torch.dtype,
    heads: int = 1024,
    processors: int = 132,
) -> dict:
    """Block sizes, warps and stages for kind "forward", "dkv" or "dq".

    `heads`: of all samples together; where their blocks would leave a quarter of the
    multiprocessors idle, the blocks are made smaller.

    M counts queries and N keys a block. Every kernel keeps two or three operands of its own block
    in registers beside fp32 accumulators, so wide heads and fp32 take smaller blocks.
    """
    width = sum(split_head(d))
    wide = bits(dtype) == 32
    m_cap = max(16, triton.next_power_of_2(max(tq, 1)))
    n_cap = max(16, triton.next_power_of_2(max(tk, 1)))
    if kind == "forward":
        if wide:
            m, n, warps, stages = (32, 32, 4, 1) if width > 64 else (64, 32, 4, 2)
        elif width <= 64:
            m, n, warps, stages = 128, 64, 4, 3
        elif width <= 128:  # 64 + 32 spills on Blackwell with 64 keys
            m, n, warps, stages = 128, 32 if 80 < width < 128 else 64, 8, 2
        else:
            m, n, warps, stages = 64, 32, 8, 2
        m, n = min(m, m_cap), min(n, n_cap)
        if m > 64 and 4 * heads * triton.cdiv(tq, m) < 3 * processors:
            m //= 2
        if m < 64 or (m == 64 and width <= 128):
            warps = 4
        return {"M": m, "N": n, "num_warps": warps, "num_stages": stages}
    # Blocks of 64 rows of its own let Hopper use its larger matrix instructions.
    if wide:
        own, other, warps = (32, 32, 4 if width <= 80 else 8) if width <= 128 else (16, 16, 4)
    elif width <= 128:
        own, other, warps = 64, 32, 4 if width <= 80 else 8
    elif width <= 192:  # two more accumulators a row than dq: less of the other side
        own, other, warps = (64, 16, 4) if kind == "dkv" else (64, 32, 8)
    else:
        own, other, warps = 32, 32, 8
    m, n = (other, own) if kind == "dkv" else (own, other)
    return {"M": min(m, m_cap), "N": min(n, n_cap), "num_warps": warps, "num_stages": 1}


def length_class(t: int) -> str:
    """Sequence lengths that share a tuned configuration."""
    for name, limit in (("16", 16), ("128", 128), ("512", 512), ("2048", 2048)):
        if t <= limit:
            return name
    return "long"


def key(kind: str, d: int, tq: int, tk: int, dtype: torch.dtype) -> str:
    """The name of a tuned configuration."""
    return f"attention/{kind}/d{d}/q{length_class(tq)}/k{length_class(tk)}/{bits(dtype)}"


def configuration(kind: str, q: torch.Tensor, tk: int) -> dict:
    b, tq, h, d = q.shape
    usual = heuristic(kind, d, tq, tk, q.dtype, b * h, multiprocessors(q.device))
    return tuned(q.device, key(kind, d, tq, tk, q.dtype), usual) or usual


# ---- kernels ------------------------------------------------------------------------------------
# Names: b_ block in registers, p_ pointers, o_ offsets; s?b, s?t, s?h, s?d strides of batch, token,
# head and channel, all but the last in units of UNIT values: a known factor of 8 lets the compiler
# move 16 bytes at a time where a head size of 40 or 72 would hide that rows are aligned. A head of
# size D is covered by D0 and, where that is not 0, D1 columns.


@triton.jit
def load_rows(p_base, o_t, o_d, st, sd, T, UNIT: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr):
    """Rows o_t (T of them exist), columns o_d (D exist) as [rows, columns]; zeros outside."""
    o_row = o_t.to(tl.int64)[:, None] * st * UNIT  # 64 bit before it can overflow
    p = p_base + o_row + o_d.to(tl.int64)[None, :] * sd
    if WIDE:  # no column is outside
        return tl.load(p, mask=o_t[:, None] < T, other=0.0)
    return tl.load(p, mask=(o_t[:, None] < T) & (o_d[None, :] < D), other=0.0)


@triton.jit
def store_rows(
    p_base, o_t, o_d, st, sd, T, UNIT: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, b_x
):
    o_row = o_t.to(tl.int64)[:, None] * st * UNIT  # 64 bit before it can overflow
    p = p_base + o_row + o_d.to(tl.int64)[None, :] * sd
    if WIDE:
        tl.store(p, b_x.to(p_base.dtype.element_ty), mask=o_t[:, None] < T)
    else:
        mask = (o_t[:, None] < T) & (o_d[None, :] < D)
        tl.store(p, b_x.to(p_base.dtype.element_ty), mask=mask)


@triton.jit
def dot(b_x, b_y, b_sum):
    """x y + sum; fp32 operands at full precision, not TF32."""
    if BY_HAND:  # the interpreter multiplies the bits of bf16 as if they were integers
        return tl.dot(b_x.to(tl.float32), b_y.to(tl.float32), b_sum, input_precision="ieee")
    return tl.dot(b_x, b_y, b_sum, input_precision="ieee")


@triton.jit
def forward_kernel(
    q, k, v, o, lse,
    sqb, sqt, sqh, sqd, skb, skt, skh, skd, svb, svt, svh, svd, sob, sot, soh, sod,
    H, Tq, Tk,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """One block of M queries of one head: o, and lse (B, H, Tq), the log2 of the softmax's sum."""
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
    b_o0 = tl.zeros([M, D0], tl.float32)
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
        b_s = dot(b_q0, tl.trans(b_k0), tl.zeros([M, N], tl.float32))
        if D1 > 0:
            b_k1 = load_rows(k, o_k, o_1, skt, skd, Tk, UNIT, D, D0 + D1 <= D)
            b_s = dot(b_q1, tl.trans(b_k1), b_s)
        if not EVEN:
            b_s = tl.where(o_k[None, :] < Tk, b_s, -float("inf"))
        b_new = tl.maximum(b_max, tl.max(b_s, 1) * scale)
        b_p = tl.exp2(b_s * scale - b_new[:, None])  # [M, N]
        b_fade = tl.exp2(b_max - b_new)
        b_sum = b_sum * b_fade + tl.sum(b_p, 1)
        b_max = b_new
        b_p = b_p.to(v.dtype.element_ty)
        b_v0 = load_rows(v, o_k, o_0, svt, svd, Tk, UNIT, D, D0 <= D)
        b_o0 = dot(b_p, b_v0, b_o0 * b_fade[:, None])
        if D1 > 0:
            b_v1 = load_rows(v, o_k, o_1, svt, svd, Tk, UNIT, D, D0 + D1 <= D)
            b_o1 = dot(b_p, b_v1, b_o1 * b_fade[:, None])

    store_rows(o, o_m, o_0, sot, sod, Tq, UNIT, D, D0 <= D, b_o0 / b_sum[:, None])
    if D1 > 0:
        store_rows(o, o_m, o_1, sot, sod, Tq, UNIT, D, D0 + D1 <= D, b_o1 / b_sum[:, None])
    tl.store(lse + bh.to(tl.int64) * Tq + o_m, b_max + tl.log2(b_sum), mask=o_m < Tq)


@triton.jit
def delta_kernel(
    o, do, delta,
    sob, sot, soh, sod, sgb, sgt, sgh, sgd,
    H, Tq,
    UNIT: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """delta (B, H, Tq): the sum over channels of o times its gradient."""
    blocks = tl.cdiv(Tq, M)
    bh = tl.program_id(0) // blocks
    o_m = (tl.program_id(0) % blocks) * M + tl.arange(0, M)
    o_d = tl.arange(0, DP)
    o_b, o_h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    b_o = load_rows(o + (o_b * sob + o_h * soh) * UNIT, o_m, o_d, sot, sod, Tq, UNIT, D, DP <= D)
    b_g = load_rows(do + (o_b * sgb + o_h * sgh) * UNIT, o_m, o_d, sgt, sgd, Tq, UNIT, D, DP <= D)
    b_delta = tl.sum(b_o.to(tl.float32) * b_g.to(tl.float32), 1)
    tl.store(delta + bh.to(tl.int64) * Tq + o_m, b_delta, mask=o_m < Tq)


@triton.jit
def dkv_kernel(
    q, k, v, do, lse, delta, dk, dv,
    sqb, sqt, sqh, sqd, skb, skt, skh, skd, svb, svt, svh, svd, sgb, sgt, sgh, sgd,
    sdkb, sdkt, sdkh, sdkd, sdvb, sdvt, sdvh, sdvd,
    H, Tq, Tk,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of N keys and values of one head, over all queries in order."""
    blocks = tl.cdiv(Tk, N)
    bh = tl.program_id(0) // blocks
    o_n = (tl.program_id(0) % blocks) * N + tl.arange(0, N)
    o_m, o_0 = tl.arange(0, M), tl.arange(0, D0)
    o_b, o_h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    q += (o_b * sqb + o_h * sqh) * UNIT
    k += (o_b * skb + o_h * skh) * UNIT
    v += (o_b * svb + o_h * svh) * UNIT
    do += (o_b * sgb + o_h * sgh) * UNIT
    dk += (o_b * sdkb + o_h * sdkh) * UNIT
    dv += (o_b * sdvb + o_h * sdvh) * UNIT
    lse += bh.to(tl.int64) * Tq
    delta += bh.to(tl.int64) * Tq

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
        o_q = start + o_m
        b_q0 = load_rows(q, o_q, o_0, sqt, sqd, Tq, UNIT, D, D0 <= D)  # [M, D0]
        b_g0 = load_rows(do, o_q, o_0, sgt, sgd, Tq, UNIT, D, D0 <= D)
        b_s = dot(b_k0, tl.trans(b_q0), tl.zeros([N, M], tl.float32))
        b_dp = dot(b_v0, tl.trans(b_g0), tl.zeros([N, M], tl.float32))
        if D1 > 0:
            b_q1 = load_rows(q, o_q, o_1, sqt, sqd, Tq, UNIT, D, D0 + D1 <= D)
            b_g1 = load_rows(do, o_q, o_1, sgt, sgd, Tq, UNIT, D, D0 + D1 <= D)
            b_s = dot(b_k1, tl.trans(b_q1), b_s)
            b_dp = dot(b_v1, tl.trans(b_g1), b_dp)
        # a query that does not exist has an infinite sum, and so no weight
        b_lse = tl.load(lse + o_q, mask=o_q < Tq, other=float("inf"))
        b_delta = tl.load(delta + o_q, mask=o_q < Tq, other=0.0)
        b_p = tl.exp2(b_s * scale - b_lse[None, :])  # [N, M]
        b_ds = (b_p * (b_dp - b_delta[None, :])).to(q.dtype.element_ty)
        b_p = b_p.to(q.dtype.element_ty)
        b_dv0 = dot(b_p, b_g0, b_dv0)
        b_dk0 = dot(b_ds, b_q0, b_dk0)
        if D1 > 0:
            b_dv1 = dot(b_p, b_g1, b_dv1)
            b_dk1 = dot(b_ds, b_q1, b_dk1)

    back: tl.constexpr = 1 / D**0.5
    store_rows(dk, o_n, o_0, sdkt, sdkd, Tk, UNIT, D, D0 <= D, b_dk0 * back)
    store_rows(dv, o_n, o_0, sdvt, sdvd, Tk, UNIT, D, D0 <= D, b_dv0)
    if D1 > 0:
        store_rows(dk, o_n, o_1, sdkt, sdkd, Tk, UNIT, D, D0 + D1 <= D, b_dk1 * back)
        store_rows(dv, o_n, o_1, sdvt, sdvd, Tk, UNIT, D, D0 + D1 <= D, b_dv1)


@triton.jit
def dq_kernel(
    q, k, v, do, lse, delta, dq,
    sqb, sqt, sqh, sqd, skb, skt, skh, skd, svb, svt, svh, svd, sgb, sgt, sgh, sgd,
    sdb, sdt, sdh, sdd,
    H, Tq, Tk,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of M queries of one head, over all keys in order."""
    blocks = tl.cdiv(Tq, M)
    bh = tl.program_id(0) // blocks
    o_m = (tl.program_id(0) % blocks) * M + tl.arange(0, M)
    o_n, o_0 = tl.arange(0, N), tl.arange(0, D0)
    o_b, o_h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    q += (o_b * sqb + o_h * sqh) * UNIT
    k += (o_b * skb + o_h * skh) * UNIT
    v += (o_b * svb + o_h * svh) * UNIT
    do += (o_b * sgb + o_h * sgh) * UNIT
    dq += (o_b * sdb + o_h * sdh) * UNIT

    b_q0 = load_rows(q, o_m, o_0, sqt, sqd, Tq, UNIT, D, D0 <= D)  # [M, D0]
    b_g0 = load_rows(do, o_m, o_0, sgt, sgd, Tq, UNIT, D, D0 <= D)
    b_dq0 = tl.zeros([M, D0], tl.float32)
    if D1 > 0:
        o_1 = D0 + tl.arange(0, D1)
        b_q1 = load_rows(q, o_m, o_1, sqt, sqd, Tq, UNIT, D, D0 + D1 <= D)
        b_g1 = load_rows(do, o_m, o_1, sgt, sgd, Tq, UNIT, D, D0 + D1 <= D)
        b_dq1 = tl.zeros([M, D1], tl.float32)
    o_row = bh.to(tl.int64) * Tq + o_m
    b_lse = tl.load(lse + o_row, mask=o_m < Tq, other=float("inf"))
    b_delta = tl.load(delta + o_row, mask=o_m < Tq, other=0.0)
    scale: tl.constexpr = LOG2E / D**0.5

    for start in range(0, Tk, N):
        o_k = start + o_n
        b_k0 = load_rows(k, o_k, o_0, skt, skd, Tk, UNIT, D, D0 <= D)  # [N, D0]
        b_v0 = load_rows(v, o_k, o_0, svt, svd, Tk, UNIT, D, D0 <= D)
        b_s = dot(b_q0, tl.trans(b_k0), tl.zeros([M, N], tl.float32))
        b_dp = dot(b_g0, tl.trans(b_v0), tl.zeros([M, N], tl.float32))
        if D1 > 0:
            b_k1 = load_rows(k, o_k, o_1, skt, skd, Tk, UNIT, D, D0 + D1 <= D)
            b_v1 = load_rows(v, o_k, o_1, svt, svd, Tk, UNIT, D, D0 + D1 <= D)
            b_s = dot(b_q1, tl.trans(b_k1), b_s)
            b_dp = dot(b_g1, tl.trans(b_v1), b_dp)
        b_p = tl.exp2(b_s * scale - b_lse[:, None])
        if not EVEN:
            b_p = tl.where(o_k[None, :] < Tk, b_p, 0.0)
        b_ds = (b_p * (b_dp - b_delta[:, None])).to(q.dtype.element_ty)
        b_dq0 = dot(b_ds, b_k0, b_dq0)
        if D1 > 0:
            b_dq1 = dot(b_ds, b_k1, b_dq1)

    back: tl.constexpr = 1 / D**0.5
    store_rows(dq, o_m, o_0, sdt, sdd, Tq, UNIT, D, D0 <= D, b_dq0 * back)
    if D1 > 0:
        store_rows(dq, o_m, o_1, sdt, sdd, Tq, UNIT, D, D0 + D1 <= D, b_dq1 * back)


# ---- the op -------------------------------------------------------------------------------------


def check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raise ValueError, in one sentence, unless attention can take these."""
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
    """Why attention can't run so, in one sentence; None where it can."""
    if dtype not in DTYPES:
        return f"the attention kernel takes {types()}, not {short(dtype)}."
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


def strides(*tensors: torch.Tensor) -> tuple[int, list[int]]:
    """UNIT, 8 or 1, and all strides of tensors (B, T, H, D), but for the last in that unit."""
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


def _grid(blocks: int, q: torch.Tensor) -> tuple[int]:
    return (blocks * q.shape[0] * q.shape[2],)


@torch.library.custom_op("glassbox::attention", mutates_args=())
def attention_op(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """o (B, Tq, H, D), contiguous, and lse (B, H, Tq): log2 of each softmax's sum, fp32."""
    b, tq, h, d = q.shape
    tk = k.shape[1]
    o = torch.empty((b, tq, h, d), dtype=q.dtype, device=q.device)
    lse = torch.empty((b, h, tq), dtype=torch.float32, device=q.device)
    if o.numel() == 0 or tk == 0:
        return o.zero_(), lse.fill_(float("inf"))
    config = configuration("forward", q, tk)
    d0, d1 = split_head(d)
    unit, steps = strides(q, k, v, o)
    with on_device_of(q):
        forward_kernel[_grid(triton.cdiv(tq, config["M"]), q)](
            q, k, v, o, lse, *steps, h, tq, tk,
            UNIT=unit, D=d, D0=d0, D1=d1, EVEN=tk % config["N"] == 0, **config,
        )  # fmt: skip
    return o, lse


@attention_op.register_fake
def _(q, k, v):
    b, tq, h, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((b, h, tq), dtype=torch.float32)


def _backward_kernels(q, k, v, o, lse, do, dq, dk, dv) -> None:
    (_, tq, h, d), tk = q.shape, k.shape[1]
    delta = torch.empty_like(lse)
    padded = triton.next_power_of_2(d)
    rows = max(16, 4096 // padded)
    unit, steps = strides(o, do)
    delta_kernel[_grid(triton.cdiv(tq, rows), q)](
        o, do, delta, *steps, h, tq, UNIT=unit, D=d, DP=padded, M=rows, num_warps=4
    )
    d0, d1 = split_head(d)
    config = configuration("dkv", q, tk)
    unit, steps = strides(q, k, v, do, dk, dv)
    dkv_kernel[_grid(triton.cdiv(tk, config["N"]), q)](
        q, k, v, do, lse, delta, dk, dv, *steps, h, tq, tk, UNIT=unit, D=d, D0=d0, D1=d1, **config
    )
    config = configuration("dq", q, tk)
    unit, steps = strides(q, k, v, do, dq)
    dq_kernel[_grid(triton.cdiv(tq, config["M"]), q)](
        q, k, v, do, lse, delta, dq, *steps, h, tq, tk,
        UNIT=unit, D=d, D0=d0, D1=d1, EVEN=tk % config["N"] == 0, **config,
    )  # fmt: skip


@torch.library.custom_op("glassbox::attention_backward", mutates_args=())
def attention_backward_op(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    do: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, contiguous."""
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if q.numel() == 0 or k.numel() == 0:
        return dq.zero_(), dk.zero_(), dv.zero_()
    with on_device_of(q):
        _backward_kernels(q, k, v, o, lse, do, dq, dk, dv)
    return dq, dk, dv


@attention_backward_op.register_fake
def _(q, k, v, o, lse, do):
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, do, _):
    q, k, v, o, lse = ctx.saved_tensors
    return attention_backward_op(q, k, v, o, lse, do)


attention_op.register_autograd(_backward, setup_context=_save)


def autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors in autocast's type where that is on, as PyTorch's own attention takes them."""
    if not all(isinstance(x, torch.Tensor) and x.dtype in DTYPES for x in tensors):
        return tensors  # for `check` to judge
    kind = tensors[0].device.type
    if kind not in ("cpu", "cuda") or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x.to(dtype) for x in tensors)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v without the matrix between, differentiable.

    q (B, Tq, H, D), k and v (B, Tk, H, D), any strides, of one type (fp16, bf16, fp32) on one CUDA
    or ROCm device; D a multiple of 8 up to 256. Returns (B, Tq, H, D), contiguous; zeros where
    Tk = 0. Softmax and sums are fp32; fp32 inputs are multiplied at full precision. Deterministic,
    gradients too. Raises ValueError in one sentence for anything else; see `unsupported`.

    FlashAttention-2: Dao, arXiv 2307.08691.
    """
    q, k, v = autocast(q, k, v)
    check(q, k, v)
    return attention_op(q, k, v)[0]
