"""Cross attention that also returns its probabilities, averaged over heads, as maps of words.

Each key is a token of the prompt, so column j of the maps shows where in the picture token j is
looked at. At most 128 keys fit in registers: a program holds complete rows of the softmax for a
block of queries, loops over the heads and sums the probabilities in registers. The maps (B, Tq, Tk)
are written once, the probabilities (B, H, Tq, Tk) are never stored, and there are no atomics. Names
in the kernels: see kernels/attention/blocks.py.

Maps of words in Stable Diffusion: Tang et al., "What the DAAM", arXiv 2210.04885.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from . import attention as plain
from . import verdict
from .attention.blocks import LOG2E, dot, load_rows, store_rows, strides
from .attention.cases import make_inputs
from .attention.tiling import is_unsafe, length_class, split_head, unique
from .launch import (
    bits,
    compute_capability,
    device_guard,
    dtype_name,
    multiprocessors,
    tuned_config,
)
from .registry import TuningJob, combinations
from .shapes import AttentionShape
from .verdict import Config

MAX_KEYS = 128


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (attention's output, its probabilities averaged over heads), in plain PyTorch.

    The results of the Triton kernel `word_kernel` are compared with it. q (B, Tq, H, D), k and v
    (B, Tk, H, D). The output is (B, Tq, H, D), the averages (B, Tq, Tk), fp32. All probabilities
    (B, H, Tq, Tk) are in memory at once.
    """
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    weights = scores.softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v), weights.float().mean(1)


def heuristic(
    b: int, d: int, tq: int, tk: int, dtype: torch.dtype, processors: int, major: int = 9
) -> dict[str, int]:
    """Return the default configuration of `word_kernel`: {"M", "SPLIT", "num_warps", "num_stages"}.

    M, the queries of a block, is the largest of 64, 32 and 16 that leaves at most half of the GPU's
    `processors` (multiprocessors) idle; fp32 and wide heads take 16. SPLIT: head size and keys are
    covered by two powers of two each, 77 keys by 64 + 16 columns. Triton then lays all warps along
    the rows, which pays for 64 rows; for fewer, padding to one power of two is faster. b, d, tq,
    tk: batch, head size, queries, keys. major: of the GPU's compute capability.
    """
    if bits(dtype) == 32 or sum(split_head(d)) > 128:
        m = 16
    else:
        m = 64
        while m > 16 and 2 * b * triton.cdiv(tq, m) < processors:
            m //= 2
    if m < 64:
        return {"M": m, "SPLIT": False, "num_warps": 8, "num_stages": 1}
    # One stage with 64 rows is what attention.tiling.is_unsafe rules out; with two, 32 + 16 columns
    # need 8 warps on sm_100, or they spill.
    warps = 8 if major == 10 and sum(split_head(d)) < 64 else 4
    return {"M": m, "SPLIT": True, "num_warps": warps, "num_stages": 2}


def conservative() -> dict[str, int]:
    """Return the safe configuration of `word_kernel`, to use if others gave wrong results.

    `word_kernel` computes attention and its maps. The configuration is {"M", "SPLIT", "num_warps",
    "num_stages"}. Wrong results were seen with HGMMA, Hopper's matrix instruction; blocks of M = 16
    queries are too small for it.
    """
    return {"M": 16, "SPLIT": False, "num_warps": 4, "num_stages": 1}


def key(d: int, tq: int, tk: int, dtype: torch.dtype) -> str:
    """Return the name under which the GPU's file in kernels/tuned has a tuned configuration.

    d, tq, tk: head size, queries, keys; 40, 4096 and 77 in fp16 give
    "word_attention/d40/qlong/k80/16" (range of queries, padded keys, bits).
    """
    keys = sum(split_head(tk))
    return f"word_attention/d{d}/q{length_class(tq)}/k{keys}/{bits(dtype)}"


def place(d: int, dtype: torch.dtype) -> str:
    """Return the name under which `kernels.check` stores results: "word_attention/d40/float16".

    d: head size.
    """
    return f"word_attention/d{d}/{dtype_name(dtype)}"


def configuration(q: torch.Tensor, tk: int) -> dict[str, int]:
    """Return the configuration with which `word_kernel` runs on queries q (B, Tq, H, D), `tk` keys.

    `word_kernel` computes attention and its maps. The configuration is {"M", "SPLIT", "num_warps",
    "num_stages"}. The candidates are, in this order, the one tuned for this GPU, that of
    `heuristic` and that of `conservative`. Returned is the first that `python -m kernels.check`
    found right on this GPU, or the first of all if nothing was checked. Raises NoRightConfiguration
    if none was right.
    """
    b, tq, _, d = q.shape
    major = compute_capability(q.device)[0]
    usual = heuristic(b, d, tq, tk, q.dtype, multiprocessors(q.device), major)

    def tuned() -> dict[str, int] | None:
        config = tuned_config(q.device, key(d, tq, tk, q.dtype), usual)
        unsafe = config and is_unsafe(config["M"], config["num_stages"], q.dtype)
        return None if unsafe else config

    return verdict.choose(q.device, place(d, q.dtype), (tuned, usual, conservative))


def choosable(d: int, dtype: torch.dtype, processors: int, major: int) -> list[dict[str, int]]:
    """Return the configurations that `word_kernel` may get at head size `d` where none is tuned.

    They are the results of `heuristic` for several numbers of queries and batch sizes, and that of
    `conservative`, without duplicates. `kernels.check` tests each of them. processors, major:
    number of multiprocessors and major compute capability of the GPU.
    """
    lengths = (16, 64, 256, 4096)
    configs = [heuristic(b, d, t, 77, dtype, processors, major) for t in lengths for b in (1, 64)]
    return unique([*configs, conservative()])


@triton.jit
def scores(
    b_q0, b_q1, k, o_k, o_0, o_1, skt, skd, Tk, scale: tl.constexpr,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Return the scores [M, N] of M queries and the keys o_k [N], -inf past the last key Tk.

    They are s = q k^T log2(e) / sqrt(D), so that softmax is 2^s. k points to one sample and head.
    b_q0, b_q1   the queries' first D0 and, unless D1 is 0, last D1 columns
    o_0, o_1     offsets of these columns
    skt, skd     strides of k by token, divided by UNIT, and by channel
    scale        log2(e) / sqrt(D)
    """
    b_k0 = load_rows(k, o_k, o_0, skt, skd, Tk, UNIT, D, D0 <= D)  # [N, D0]
    b_s = dot(b_q0, tl.trans(b_k0), tl.zeros([M, N], tl.float32))
    if D1 > 0:
        b_k1 = load_rows(k, o_k, o_1, skt, skd, Tk, UNIT, D, D0 + D1 <= D)
        b_s = dot(b_q1, tl.trans(b_k1), b_s)
    return tl.where(o_k[None, :] < Tk, b_s * scale, -float("inf"))


@triton.jit
def dot_values(
    b_p, v, o_k, o_0, o_1, svt, svd, Tk, b_o0, b_o1,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
):  # fmt: skip
    """Return b_o0 [M, D0] + b_p v0 and b_o1 [M, D1] + b_p v1: values weighted by probabilities.

    b_p [M, N] are the probabilities of the keys o_k [N]; v0 and v1 are the first D0 and, unless D1
    is 0, the last D1 columns of their values, at offsets o_0 and o_1. v points to one sample and
    head; svt, svd: its strides by token, divided by UNIT, and by channel. Tk, D: keys, head
    size.
    """
    b_p = b_p.to(v.dtype.element_ty)
    b_v0 = load_rows(v, o_k, o_0, svt, svd, Tk, UNIT, D, D0 <= D)
    b_o0 = dot(b_p, b_v0, b_o0)
    if D1 > 0:
        b_v1 = load_rows(v, o_k, o_1, svt, svd, Tk, UNIT, D, D0 + D1 <= D)
        b_o1 = dot(b_p, b_v1, b_o1)
    return b_o0, b_o1


@triton.jit
def store_map(p_map, o_k, o_m, Tq, Tk, b_map):
    """Store b_map [M, N], probabilities averaged over heads, to one sample's map (Tq, Tk).

    o_m, o_k: the rows (queries) and columns (keys) of the map; nothing is written outside it.
    """
    p = p_map + o_m.to(tl.int64)[:, None] * Tk + o_k[None, :]
    tl.store(p, b_map, mask=(o_m[:, None] < Tq) & (o_k[None, :] < Tk))


@triton.jit
def word_kernel(
    q, k, v, o, lse2, maps,
    sqb, sqt, sqh, sqd, skb, skt, skh, skd, svb, svt, svh, svd, sob, sot, soh, sod,
    H, Tq, Tk,
    UNIT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    N0: tl.constexpr, N1: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Compute o, lse2 and maps for M queries of one sample, in a loop over its H heads.

    For each head:
      p = softmax(q k^T / sqrt(D))   o = p v   lse2 = log2 sum_j exp(q k_j / sqrt(D))
    and maps (B, Tq, Tk) = (sum of p over heads) / H. sqb, sqt, sqh, sqd: strides of q by batch,
    token, head and channel, the first three divided by UNIT; likewise for k, v and o. Tq,
    Tk, D: queries, keys, head size. D0, D1 and N0, N1: powers of two that cover D and Tk; D1 and N1
    may be 0.
    """
    # Program i has block i % blocks of the queries of sample i // blocks.
    blocks = tl.cdiv(Tq, M)
    o_b = (tl.program_id(0) // blocks).to(tl.int64)
    o_m = (tl.program_id(0) % blocks) * M + tl.arange(0, M)
    o_0, o_1 = tl.arange(0, D0), D0 + tl.arange(0, max(D1, 16))
    o_n0, o_n1 = tl.arange(0, N0), N0 + tl.arange(0, max(N1, 16))
    q += o_b * sqb * UNIT
    k += o_b * skb * UNIT
    v += o_b * svb * UNIT
    o += o_b * sob * UNIT
    # The sum over heads of p, in N0 and N1 columns.
    b_map0 = tl.zeros([M, N0], tl.float32)
    if N1 > 0:
        b_map1 = tl.zeros([M, N1], tl.float32)
    scale: tl.constexpr = LOG2E / D**0.5

    for h in range(0, H):
        # s = q k^T log2(e) / sqrt(D), [M, N0] and [M, N1]; max = max_j s_j
        b_q0 = load_rows(q, o_m, o_0, sqt, sqd, Tq, UNIT, D, D0 <= D)  # [M, D0]
        b_q1 = b_q0
        if D1 > 0:
            b_q1 = load_rows(q, o_m, o_1, sqt, sqd, Tq, UNIT, D, D0 + D1 <= D)
        b_s0 = scores(b_q0, b_q1, k, o_n0, o_0, o_1, skt, skd, Tk, scale, UNIT, D, D0, D1, M, N0)
        b_max = tl.max(b_s0, 1)
        if N1 > 0:
            b_s1 = scores(
                b_q0, b_q1, k, o_n1, o_0, o_1, skt, skd, Tk, scale, UNIT, D, D0, D1, M, N1
            )
            b_max = tl.maximum(b_max, tl.max(b_s1, 1))
        # p_j = 2^(s_j - max), sum = sum_j p_j
        b_p0 = tl.exp2(b_s0 - b_max[:, None])  # [M, N0]
        b_sum = tl.sum(b_p0, 1)
        if N1 > 0:
            b_p1 = tl.exp2(b_s1 - b_max[:, None])  # [M, N1]
            b_sum += tl.sum(b_p1, 1)
        # p = p / sum, map = map + p, o = p v
        b_p0 = b_p0 / b_sum[:, None]
        b_map0 += b_p0
        b_o0, b_o1 = tl.zeros([M, D0], tl.float32), tl.zeros([M, max(D1, 16)], tl.float32)
        b_o0, b_o1 = dot_values(b_p0, v, o_n0, o_0, o_1, svt, svd, Tk, b_o0, b_o1, UNIT, D, D0, D1)
        if N1 > 0:
            b_p1 = b_p1 / b_sum[:, None]
            b_map1 += b_p1
            b_o0, b_o1 = dot_values(
                b_p1, v, o_n1, o_0, o_1, svt, svd, Tk, b_o0, b_o1, UNIT, D, D0, D1
            )
        store_rows(o, o_m, o_0, sot, sod, Tq, UNIT, D, D0 <= D, b_o0)
        if D1 > 0:
            store_rows(o, o_m, o_1, sot, sod, Tq, UNIT, D, D0 + D1 <= D, b_o1)
        # lse2 = max + log2 sum; then go to the next head
        tl.store(lse2 + (o_b * H + h) * Tq + o_m, b_max + tl.log2(b_sum), mask=o_m < Tq)
        q += tl.cast(sqh, tl.int64) * UNIT
        k += tl.cast(skh, tl.int64) * UNIT
        v += tl.cast(svh, tl.int64) * UNIT
        o += tl.cast(soh, tl.int64) * UNIT

    # maps = sum over heads of p / H
    store_map(maps + o_b * Tq * Tk, o_n0, o_m, Tq, Tk, b_map0 / H)
    if N1 > 0:
        store_map(maps + o_b * Tq * Tk, o_n1, o_m, Tq, Tk, b_map1 / H)


@torch.library.custom_op("glassbox::word_attention", mutates_args=())
def word_attention_op(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return attention's output o (B, Tq, H, D), maps (B, Tq, Tk) and lse2 (B, H, Tq).

    q (B, Tq, H, D), k and v (B, Tk, H, D), Tk at most 128, which are not checked. maps, fp32:
    probabilities averaged over heads. lse2, fp32, for the backward pass: log2 of the softmax's
    denominator for each query. If Tk = 0, o is 0 and lse2 infinity.
    """
    b, tq, h, d = q.shape
    tk = k.shape[1]
    o = torch.empty((b, tq, h, d), dtype=q.dtype, device=q.device)
    maps = torch.empty((b, tq, tk), dtype=torch.float32, device=q.device)
    lse2 = torch.empty((b, h, tq), dtype=torch.float32, device=q.device)
    if o.numel() == 0 or tk == 0:
        return o.zero_(), maps.zero_(), lse2.fill_(float("inf"))
    config = dict(configuration(q, tk))
    whole = (max(16, triton.next_power_of_2(n)) for n in (d, tk))
    (d0, d1), (n0, n1) = (
        (split_head(d), split_head(tk)) if config.pop("SPLIT") else ((w, 0) for w in whole)
    )
    unit, steps = strides(q, k, v, o)
    with device_guard(q):
        word_kernel[(b * triton.cdiv(tq, config["M"]),)](
            q, k, v, o, lse2, maps, *steps, h, tq, tk,
            UNIT=unit, D=d, D0=d0, D1=d1, N0=n0, N1=n1, **config,
        )  # fmt: skip
    return o, maps, lse2


@word_attention_op.register_fake
def _(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    b, tq, h, _ = q.shape
    return (
        q.new_empty(q.shape),
        q.new_empty((b, tq, k.shape[1]), dtype=torch.float32),
        q.new_empty((b, h, tq), dtype=torch.float32),
    )


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    o, maps, lse2 = output
    ctx.save_for_backward(*inputs, o, lse2)
    ctx.mark_non_differentiable(maps, lse2)


def _backward(ctx: Any, do: torch.Tensor, _maps: Any, _lse2: Any) -> tuple[torch.Tensor, ...]:
    q, k, v, o, lse2 = ctx.saved_tensors
    return plain.attention_backward_op(q, k, v, o, lse2, do)


word_attention_op.register_autograd(_backward, setup_context=_save)


def unsupported(
    device: torch.device,
    dtype: torch.dtype,
    head_size: int | None = None,
    keys: int | None = None,
    *,
    mask: bool = False,
) -> str | None:
    """Return in one sentence why `word_attention` can't run on `device`, or None if it can.

    head_size and keys (Tk, at most 128): None skips their checks. mask: whether the caller needs an
    attention mask, which the kernel does not support.
    """
    if keys is not None and keys > MAX_KEYS:
        return f"word attention takes at most {MAX_KEYS} keys, not {keys}."
    return plain.unsupported(device, dtype, head_size, mask=mask)


def word_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention's output and its probabilities averaged over heads, as maps of the words.

    q (B, Tq, H, D), k and v (B, Tk, H, D) with Tk at most 128, of one dtype (fp16, bf16, fp32) on
    one CUDA or ROCm device; D a multiple of 8 up to 256. Returns o (B, Tq, H, D) and maps (B, Tq,
    Tk), fp32: row i tells how much query i attends to each key and sums to 1. Gradients flow
    through o, not through the maps. Raises ValueError for other inputs; `unsupported` tells
    beforehand.
    """
    q, k, v = plain.autocast(q, k, v)
    plain.check(q, k, v)
    if k.shape[1] > MAX_KEYS:
        raise ValueError(f"k has {k.shape[1]} keys; word attention takes at most {MAX_KEYS}.")
    o, maps, _ = word_attention_op(q, k, v)
    return o, maps


# ---- for the registry ---------------------------------------------------------------------------


def launch_on_meta(shape: AttentionShape, dtype: torch.dtype, mode: str) -> None:
    """Call `word_attention`'s op on tensors without memory, so that its launches are recorded.

    mode is always "forward". Call it only inside `kernels.recorder.recording()`, where a launch is
    recorded, to be compiled without a GPU, instead of run.
    """
    (inputs,) = make_inputs(shape, dtype, "meta")
    word_attention_op._init_fn(**inputs)


def check_configurations(
    shape: AttentionShape, dtype: torch.dtype, mode: str, device: torch.device, every: bool
) -> Iterator[tuple[str, Config, dict[str, Config]]]:
    """Yield the configurations with which `python -m kernels.check` runs `word_attention`.

    A configuration is a dict such as {"M": 64, "SPLIT": True, "num_warps": 4, "num_stages": 2}. At
    each shape the tuned, the default and the smallest one are checked. With `every`, a shape of the
    model "odd" (unusual lengths) is also checked with the configurations that are the default at
    other lengths. Each item is (place, configuration, forced). place: the name under which the
    result is stored, such as "word_attention/d40/float16". forced: {place: configuration}, which
    the launch must use. mode: always "forward".
    """
    d, major = shape.head_size, compute_capability(device)[0]
    where, processors = place(d, dtype), multiprocessors(device)
    usual = heuristic(shape.batch, d, shape.queries, shape.keys, dtype, processors, major)
    tuned = tuned_config(device, key(d, shape.queries, shape.keys, dtype), usual)
    configs: list[Config] = [usual, conservative()]
    if tuned and not is_unsafe(tuned["M"], tuned["num_stages"], dtype):
        configs.insert(0, tuned)
    if every and shape.model == "odd":
        configs += choosable(d, dtype, processors, major)
    for config in unique(configs):
        yield where, config, {where: config}


def tuning_jobs(shapes: Sequence[AttentionShape], dtype: torch.dtype) -> Iterator[TuningJob]:
    """Yield the tuner's job for each shape: the configurations of `word_kernel` to time there."""
    # Not 64 rows in one stage: see CHOICES in kernels/attention/cases.py.
    candidates = [
        *combinations(M=(16, 32), SPLIT=(True, False), num_warps=(4, 8), num_stages=(1, 2)),
        *combinations(M=(64,), SPLIT=(True, False), num_warps=(4, 8), num_stages=(2,)),
    ]
    for shape in shapes:
        name = key(shape.head_size, shape.queries, shape.keys, dtype)
        yield TuningJob(name, place(shape.head_size, dtype), candidates, shape, "forward")
