"""Block sizes, warps and stages of the attention kernels, chosen from shapes alone."""

from __future__ import annotations

import torch
import triton

from .. import verdict
from ..launch import bits, dtype_name, multiprocessors, tuned_config


def split_head(d: int) -> tuple[int, int]:
    """Return two powers of two (D0, D1) whose sum covers head size `d`: (32, 16) for 40.

    Triton's blocks have powers of two as sides; two parts can waste less than one: 48 columns
    instead of 64. D1 is 0 unless two parts need fewer columns than d padded to the next power of
    two: (64, 0) for 64. Each part is at least 16, the matrix unit's smallest side.
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
) -> dict[str, int]:
    """Return an attention kernel's default configuration: {"M", "N", "num_warps", "num_stages"}.

    A block has M queries and N keys. Each kernel keeps two or three operands of its own block in
    registers beside fp32 accumulators, so wide heads and fp32 get smaller blocks.
      kind         the kernel: "forward", "dkv" (gradients of k and v) or "dq" (gradient of q)
      d, tq, tk    head size, queries, keys
      heads        heads of all samples together (B H)
      processors   multiprocessors of the GPU; "forward" takes half of 128 queries where there would
                   be fewer blocks than three quarters of the multiprocessors
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
    # `own`: rows whose gradients a program computes; 64 let Hopper use its larger matrix
    # instructions. `other`: rows of the other side that it loads at a time.
    if wide:
        own, other, warps = (32, 32, 4 if width <= 80 else 8) if width <= 128 else (16, 16, 4)
    elif width <= 128:
        own, other, warps = 64, 32, 4 if width <= 80 else 8
    elif width <= 192:  # dkv has two more accumulators a row than dq, so it loads fewer rows
        own, other, warps = (64, 16, 4) if kind == "dkv" else (64, 32, 8)
    else:
        own, other, warps = 32, 32, 8
    # One stage with 64 rows is what `is_unsafe` rules out.
    stages = 2 if own >= 64 else 1
    m, n = (other, own) if kind == "dkv" else (own, other)
    return {"M": min(m, m_cap), "N": min(n, n_cap), "num_warps": warps, "num_stages": stages}


def conservative() -> dict[str, int]:
    """Return the attention kernels' safest configuration, for use where others failed a check.

    It is {"M", "N", "num_warps", "num_stages"}. Its blocks of 16 queries (M) and 16 keys (N) are
    too small for HGMMA, Hopper's matrix instruction, with which wrong results were seen.
    """
    return {"M": 16, "N": 16, "num_warps": 4, "num_stages": 1}


def is_unsafe(rows: int, stages: int, dtype: torch.dtype) -> bool:
    """Return whether a configuration is of the kind that gave wrong results or crashed on an H200.

    That kind multiplies fp16 or bf16 with HGMMA in one pipeline stage. rows: rows of the left
    operand of the kernel's matrix products (M or N); from 64 on, GPUs of compute capability 9.0 use
    HGMMA. stages: num_stages. dtype: that of q, k and v.
    """
    # ptxas 12.8, which triton 3.6 uses for sm_90, can build descriptors of HGMMA's operands from a
    # register that was never written (kernels/sass.py finds it): wrong values or an illegal memory
    # access. Among 195 compiled configurations it did so in 27, all with one stage and a head split
    # in two parts (D = 40, 80, 96, 160; never D = 64), where both parts take turns at one address
    # in shared memory under two swizzles. Two stages were never affected. ptxas from 12.9 on, so
    # triton 3.9, compiles these correctly. Ruled out is one stage whatever the head.
    return rows >= 64 and stages < 2 and bits(dtype) == 16


def length_class(t: int) -> str:
    """Return the range that a number of tokens is in: "16", "128", "512", "2048" or "long".

    A range is named by its largest number. Queries or keys whose numbers are in one range share a
    tuned configuration (block sizes, warps, stages).
    """
    for name, limit in (("16", 16), ("128", 128), ("512", 512), ("2048", 2048)):
        if t <= limit:
            return name
    return "long"


def key(kind: str, d: int, tq: int, tk: int, dtype: torch.dtype) -> str:
    """Return the name under which the GPU's file in kernels/tuned has a tuned configuration.

    kind: the kernel, "forward", "dkv" (gradients of k and v) or "dq" (gradient of q). d, tq, tk:
    head size, number of queries, number of keys. For "forward" with 40, 4096 and 77 in fp16 the
    name is "attention/forward/d40/qlong/k128/16": q and k are followed by the range that the number
    is in, and 16 are the bits of the dtype.
    """
    return f"attention/{kind}/d{d}/q{length_class(tq)}/k{length_class(tk)}/{bits(dtype)}"


def place(kind: str, d: int, dtype: torch.dtype) -> str:
    """Return the name for which `kernels.check` stores results: "attention/forward/d40/float16".

    kind: the kernel, "forward", "dkv" (gradients of k and v) or "dq". d: head size.
    """
    return f"attention/{kind}/d{d}/{dtype_name(dtype)}"


def configuration(kind: str, q: torch.Tensor, tk: int) -> dict[str, int]:
    """Return {"M", "N", "num_warps", "num_stages"} for a launch with q (B, Tq, H, D) and `tk` keys.

    kind: the kernel, "forward", "dkv" (gradients of k and v) or "dq". Tried in this order are the
    configuration tuned for this GPU, that of `heuristic`, that of `conservative`: the first that
    `python -m kernels.check` found right on this GPU is returned, or the first if nothing was
    checked. Raises NoRightConfiguration if none was right.
    """
    b, tq, h, d = q.shape
    usual = heuristic(kind, d, tq, tk, q.dtype, b * h, multiprocessors(q.device))

    def tuned() -> dict[str, int] | None:
        config = tuned_config(q.device, key(kind, d, tq, tk, q.dtype), usual)
        if config is None or is_unsafe(
            config["N" if kind == "dkv" else "M"], config["num_stages"], q.dtype
        ):
            return None
        return config

    return verdict.choose(q.device, place(kind, d, q.dtype), (tuned, usual, conservative))


def choosable(kind: str, d: int, dtype: torch.dtype, processors: int) -> list[dict[str, int]]:
    """Return all configurations of an attention kernel that `heuristic` or `conservative` can give.

    `kernels.check` tests them all. They are those for head size `d` with any lengths and number of
    heads. kind: "forward", "dkv" (gradients of k and v) or "dq". processors: multiprocessors of the
    GPU.
    """
    lengths = (16, 32, 64, 128, 4096)
    return unique(
        [
            heuristic(kind, d, tq, tk, dtype, heads, processors)
            for tq in lengths
            for tk in lengths
            for heads in (1, 1024)
        ]
        + [conservative()]
    )


def unique(configs: list[dict[str, int]]) -> list[dict[str, int]]:
    """Return the configurations (block sizes, warps, stages) without repetitions, in order."""
    return [config for i, config in enumerate(configs) if config not in configs[:i]]
