"""GroupNorm with an optional shift before it and SiLU after it, in Triton, forward and backward.

In a ResBlock the timestep embedding is added per sample and channel, then GroupNorm, then SiLU:
three passes over memory that are one here. Both layouts are served as they lie in memory.

Statistics. A group is cut into leaves whose size depends on the shape alone. Values are taken
relative to a pivot, the group's first value, which lies within sqrt(n) deviations of the mean, and
shifts relative to that of the group's first channel, so no large mean is ever rounded away: neither
in the sums nor in what is subtracted at the end. Each
leaf gives its mean and its squared deviations from that mean; leaves are merged pairwise in one
fixed tree (Chan, Golub, LeVeque 1979). So the result does not depend on which program saw what.

Launches. One, where a group is small; else three: leaves, merge, apply, the first and the last
spread over the multiprocessors. The shape alone decides which, so a sample's bits depend neither on
its company nor on the size of the GPU. No atomics, forward or backward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from ..launch import DTYPES, device_problem, multiprocessors, on_device_of, short, tuned, types

LEAF = 4096  # values of a tile, all its groups together
LANES = 64  # leaves merged at once
WALKED = 16  # leaves that one program takes one after the other
MAX_PLACES = 2**31 - 2 * LEAF  # place numbers are 32 bit
MAX_CHANNELS = 1 << 16  # of a group: backward sums them in one tile


def reference(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    *,
    silu: bool = False,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same in plain PyTorch."""
    if shift is not None:
        x = x + shift.reshape(*shift.shape, *(1,) * (x.ndim - 2))
    y = F.group_norm(x, groups, weight, bias, eps)
    return F.silu(y) if silu else y


# ---- shapes and configurations ------------------------------------------------------------------


def collapse(x: torch.Tensor) -> tuple[int, int, int] | None:
    """Strides (sample, channel, place) of x (N, C, *) seen as (N, C, S); None where no single
    stride walks all places or they lie in another order."""
    place, expected = 1, None
    for size, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if size == 1:
            continue
        if expected is None:
            place = stride
        elif stride != expected:
            return None
        expected = stride * size
    return x.stride(0), x.stride(1), place


@dataclass(frozen=True)
class Tiles:
    """How a shape is cut: tiles of `places` x (`groups` x `channels`), powers of two.

    A group of `of` channels has `leaves` tiles: channel blocks times place blocks.
    """

    places: int
    channels: int
    groups: int
    channel_blocks: int
    place_blocks: int
    warps: int

    @property
    def leaves(self) -> int:
        return self.channel_blocks * self.place_blocks


def tiles(of: int, groups: int, places: int, last: bool, size: int) -> Tiles:
    """Tiles for `groups` groups of `of` channels over `places`, from the shape alone.

    `last`: channels lie side by side (channels-last); then a tile takes whole groups (of up to
    4096 channels), as many as make 64 bytes a place, so that memory is read in full sectors.
    `size`: bytes of a value.
    """
    if last:
        channels, together = min(triton.next_power_of_2(of), LEAF), 1
        while together < groups and together * of * size < 64:
            together *= 2
        block = max(1, min(triton.next_power_of_2(places), LEAF // (channels * together)))
    else:
        together = 1
        block = min(triton.next_power_of_2(places), LEAF)
        channels = min(triton.next_power_of_2(of), max(1, LEAF // block))
    return Tiles(
        block,
        channels,
        together,
        triton.cdiv(of, channels),
        triton.cdiv(places, block),
        8 if block * channels * together >= 4096 else 4,
    )


def one_launch(cut: Tiles) -> bool:
    """Whether a group is walked by one program: two more launches cost more than its few leaves."""
    return cut.leaves <= WALKED


def leaves_each(cut: Tiles, programs: int, processors: int) -> int:
    """Leaves a program takes where the work is split: about four programs a multiprocessor."""
    wanted = max(1, 4 * processors // max(1, programs))
    return max(1, triton.cdiv(cut.leaves, wanted))


# ---- kernels ------------------------------------------------------------------------------------
# A tile is [SB places, GB * CB channels]; CG channels a group, G groups, S places. The scratch of
# leaves is (N, G, leaves); STATS (N, G, 3) holds the pivot, the mean of the centred values and
# 1 / deviation.


@triton.jit
def tile_columns(group, block, G, CG: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr):
    """Channels of a tile's columns, their group's column, and which exist."""
    o = tl.arange(0, GB * CB)
    o_g = group * GB + o // CB
    o_in = block * CB + o % CB
    return o_g * CG + o_in, (o_g < G) & (o_in < CG)


@triton.jit
def load_centred(
    x, shift, o_s, o_c, m_c, b_pivot, ssn, ss, sc, S, CG: tl.constexpr, HAS_SHIFT: tl.constexpr
):
    """x - pivot + shift - first shift, fp32 [SB, columns], and where it exists; b_pivot a column,
    the first shift that of the group's first channel."""
    mask = (o_s[:, None] < S) & m_c[None, :]
    p = x + o_s.to(tl.int64)[:, None] * ss + o_c.to(tl.int64)[None, :] * sc
    b_x = tl.load(p, mask=mask, other=0.0).to(tl.float32) - b_pivot[None, :]
    if HAS_SHIFT:
        b_shift = tl.load(shift + o_c.to(tl.int64) * ssn, mask=m_c, other=0.0).to(tl.float32)
        o_first = (o_c // CG * CG).to(tl.int64)
        b_first = tl.load(shift + o_first * ssn, mask=m_c, other=0.0).to(tl.float32)
        b_x += (b_shift - b_first)[None, :]
    return b_x, mask


@triton.jit
def load_pivot(x, o_g, G, sc, CG: tl.constexpr):
    """The first value of each group, [GB]."""
    return tl.load(x + (o_g * CG).to(tl.int64) * sc, mask=o_g < G, other=0.0).to(tl.float32)


@triton.jit
def spread(b_g, GB: tl.constexpr, CB: tl.constexpr):
    """A value a group, [GB], to its columns, [GB * CB]."""
    return tl.reshape(tl.broadcast_to(b_g[:, None], (GB, CB)), (GB * CB,))


@triton.jit
def gather(b_x, GB: tl.constexpr, CB: tl.constexpr):
    """Sum of a tile [SB, GB * CB] over each group, [GB]."""
    return tl.sum(tl.reshape(tl.sum(b_x, 0), (GB, CB)), 1)


@triton.jit
def leaf_count(leaf, place_blocks, S, CG, SB: tl.constexpr, CB: tl.constexpr):
    """How many values a leaf has, fp32 (at most 4096, so exact); 0 past the last leaf."""
    channels = tl.minimum(CB, CG - (leaf // place_blocks) * CB)
    places = tl.minimum(SB, S - (leaf % place_blocks) * SB)
    return tl.cast(tl.maximum(channels, 0) * places, tl.float32)


@triton.jit
def leaf_stats(b_d, mask, count, GB: tl.constexpr, CB: tl.constexpr):
    """Mean and squared deviations of a tile of differences from the pivot, [GB] each."""
    b_mean = gather(tl.where(mask, b_d, 0.0), GB, CB) / count
    b_r = tl.where(mask, b_d - spread(b_mean, GB, CB)[None, :], 0.0)
    return b_mean, gather(b_r * b_r, GB, CB)


@triton.jit
def halve(b_x, L: tl.constexpr, GB: tl.constexpr):
    """Even and odd rows of [L, GB]."""
    return tl.split(tl.permute(tl.reshape(b_x, (L // 2, 2, GB)), (0, 2, 1)))


@triton.jit
def merge(b_n, b_mean, b_m2, L: tl.constexpr, GB: tl.constexpr):
    """One count, mean and sum of squares, [1, GB], of L leaves [L, GB], pairwise."""
    if L == 1:
        return b_n, b_mean, b_m2
    else:
        n0, n1 = halve(b_n, L, GB)
        mean0, mean1 = halve(b_mean, L, GB)
        m20, m21 = halve(b_m2, L, GB)
        n = n0 + n1
        part = tl.where(n > 0, n1 / tl.maximum(n, 1.0), 0.0)
        step = mean1 - mean0
        return merge(n, mean0 + step * part, m20 + m21 + step * step * n0 * part, L // 2, GB)


@triton.jit
def finish(b_d, b_mean, b_rstd, weight, bias, o_c, m_c,
           HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr):  # fmt: skip
    """Normalised, scaled values of centred ones; b_mean and b_rstd a column."""
    b_y = (b_d - b_mean[None, :]) * b_rstd[None, :]
    if HAS_WEIGHT:
        b_y *= tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        b_y += tl.load(bias + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
    return b_y


@triton.jit
def apply_leaf(
    x, y, shift, weight, bias, b_pivot, b_mean, b_rstd, group, leaf, place_blocks,
    ss, sc, yss, ysc, ssn, G, S,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_SHIFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    o_s = (leaf % place_blocks) * SB + tl.arange(0, SB)
    o_c, m_c = tile_columns(group, leaf // place_blocks, G, CG, GB, CB)
    b_pivots = spread(b_pivot, GB, CB)
    b_d, mask = load_centred(x, shift, o_s, o_c, m_c, b_pivots, ssn, ss, sc, S, CG, HAS_SHIFT)
    b_y = finish(
        b_d, spread(b_mean, GB, CB), spread(b_rstd, GB, CB),
        weight, bias, o_c, m_c, HAS_WEIGHT, HAS_BIAS,
    )  # fmt: skip
    if SILU:
        b_y = b_y * tl.sigmoid(b_y)
    p = y + o_s.to(tl.int64)[:, None] * yss + o_c.to(tl.int64)[None, :] * ysc
    tl.store(p, b_y.to(y.dtype.element_ty), mask=mask)


@triton.jit
def store_stats(stats, o_g, G, b_pivot, b_mean, b_rstd):
    tl.store(stats + o_g * 3, b_pivot, mask=o_g < G)
    tl.store(stats + o_g * 3 + 1, b_mean, mask=o_g < G)
    tl.store(stats + o_g * 3 + 2, b_rstd, mask=o_g < G)


@triton.jit
def whole_kernel(
    x, y, shift, weight, bias, stats,
    sn, sc, ss, ysn, ysc, yss, shn, shc,
    eps, G, S, place_blocks, leaves,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr, L: tl.constexpr,
    HAS_SHIFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """GB groups of one sample from beginning to end; L lanes hold the leaves."""
    blocks = tl.cdiv(G, GB)
    n, group = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    x += n * sn
    y += n * ysn
    shift += n * shn
    o_g, o_l = group * GB + tl.arange(0, GB), tl.arange(0, L)
    b_pivot = load_pivot(x, o_g, G, sc, CG)
    b_means, b_m2s = tl.zeros([L, GB], tl.float32), tl.zeros([L, GB], tl.float32)
    for leaf in range(0, leaves):
        o_s = (leaf % place_blocks) * SB + tl.arange(0, SB)
        o_c, m_c = tile_columns(group, leaf // place_blocks, G, CG, GB, CB)
        b_pivots = spread(b_pivot, GB, CB)
        b_d, mask = load_centred(x, shift, o_s, o_c, m_c, b_pivots, shc, ss, sc, S, CG, HAS_SHIFT)
        count = leaf_count(leaf, place_blocks, S, CG, SB, CB)
        b_mean, b_m2 = leaf_stats(b_d, mask, count, GB, CB)
        here = (o_l == leaf)[:, None]
        b_means = tl.where(here, b_mean[None, :], b_means)
        b_m2s = tl.where(here, b_m2[None, :], b_m2s)
    b_n = tl.where(o_l < leaves, leaf_count(o_l, place_blocks, S, CG, SB, CB), 0.0)
    b_n = tl.broadcast_to(b_n[:, None], (L, GB))
    b_n, b_means, b_m2s = merge(b_n, b_means, b_m2s, L, GB)
    b_mean = tl.reshape(b_means, (GB,))
    b_rstd = tl.rsqrt(tl.reshape(b_m2s / b_n, (GB,)) + eps)
    store_stats(stats + n * G * 3, o_g, G, b_pivot, b_mean, b_rstd)
    for leaf in range(0, leaves):
        apply_leaf(
            x, y, shift, weight, bias, b_pivot, b_mean, b_rstd, group, leaf, place_blocks,
            ss, sc, yss, ysc, shc, G, S, CG, SB, GB, CB, HAS_SHIFT, HAS_WEIGHT, HAS_BIAS, SILU,
        )  # fmt: skip


@triton.jit
def leaves_kernel(
    x, shift, means, m2s,
    sn, sc, ss, shn, shc, G, S, place_blocks, leaves, each,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
):  # fmt: skip
    """Mean and squared deviations of `each` leaves of GB groups of one sample."""
    blocks, parts = tl.cdiv(G, GB), tl.cdiv(leaves, each)
    part, rest = tl.program_id(0) % parts, tl.program_id(0) // parts
    n, group = (rest // blocks).to(tl.int64), rest % blocks
    x += n * sn
    shift += n * shn
    o_g = group * GB + tl.arange(0, GB)
    b_pivot = load_pivot(x, o_g, G, sc, CG)
    for leaf in range(part * each, tl.minimum(leaves, (part + 1) * each)):
        o_s = (leaf % place_blocks) * SB + tl.arange(0, SB)
        o_c, m_c = tile_columns(group, leaf // place_blocks, G, CG, GB, CB)
        b_pivots = spread(b_pivot, GB, CB)
        b_d, mask = load_centred(x, shift, o_s, o_c, m_c, b_pivots, shc, ss, sc, S, CG, HAS_SHIFT)
        count = leaf_count(leaf, place_blocks, S, CG, SB, CB)
        b_mean, b_m2 = leaf_stats(b_d, mask, count, GB, CB)
        o = (n * G + o_g) * leaves + leaf
        tl.store(means + o, b_mean, mask=o_g < G)
        tl.store(m2s + o, b_m2, mask=o_g < G)


@triton.jit
def merge_kernel(
    x, means, m2s, stats,
    sn, sc, eps, G, S, place_blocks, leaves,
    CG: tl.constexpr, SB: tl.constexpr, CB: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """All leaves of one group of one sample, L at a time, to its statistics."""
    n, g = (tl.program_id(0) // G).to(tl.int64), tl.program_id(0) % G
    o_g, o_l = g + tl.arange(0, 1), tl.arange(0, L)
    b_pivot = load_pivot(x + n * sn, o_g, G, sc, CG)
    b_n, b_mean, b_m2 = (
        tl.zeros([1, 1], tl.float32), tl.zeros([1, 1], tl.float32), tl.zeros([1, 1], tl.float32),
    )  # fmt: skip
    for start in range(0, leaves, L):
        o = start + o_l
        p = (n * G + g) * leaves + o
        c_mean = tl.load(means + p, mask=o < leaves, other=0.0)
        c_m2 = tl.load(m2s + p, mask=o < leaves, other=0.0)
        c_n = tl.where(o < leaves, leaf_count(o, place_blocks, S, CG, SB, CB), 0.0)
        c_n, c_mean, c_m2 = merge(c_n[:, None], c_mean[:, None], c_m2[:, None], L, 1)
        total = b_n + c_n
        share, step = c_n / total, c_mean - b_mean
        b_m2 += c_m2 + step * step * b_n * share
        b_mean += step * share
        b_n = total
    b_rstd = tl.rsqrt(tl.reshape(b_m2 / b_n, (1,)) + eps)
    store_stats(stats + n * G * 3, o_g, G, b_pivot, tl.reshape(b_mean, (1,)), b_rstd)


@triton.jit
def apply_kernel(
    x, y, shift, weight, bias, stats,
    sn, sc, ss, ysn, ysc, yss, shn, shc, G, S, place_blocks, leaves, each,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_SHIFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """`each` leaves of GB groups of one sample, with known statistics."""
    blocks, parts = tl.cdiv(G, GB), tl.cdiv(leaves, each)
    part, rest = tl.program_id(0) % parts, tl.program_id(0) // parts
    n, group = (rest // blocks).to(tl.int64), rest % blocks
    o_g = group * GB + tl.arange(0, GB)
    p = stats + (n * G + o_g) * 3
    b_pivot = tl.load(p, mask=o_g < G, other=0.0)
    b_mean = tl.load(p + 1, mask=o_g < G, other=0.0)
    b_rstd = tl.load(p + 2, mask=o_g < G, other=0.0)
    for leaf in range(part * each, tl.minimum(leaves, (part + 1) * each)):
        apply_leaf(
            x + n * sn, y + n * ysn, shift + n * shn, weight, bias, b_pivot, b_mean, b_rstd,
            group, leaf, place_blocks, ss, sc, yss, ysc, shc, G, S,
            CG, SB, GB, CB, HAS_SHIFT, HAS_WEIGHT, HAS_BIAS, SILU,
        )  # fmt: skip


@triton.jit
def slope_kernel(
    x, dy, shift, weight, bias, stats, sums,
    sn, sc, ss, dsn, dsc, dss, shn, shc, N, C, G, S, place_blocks, leaves, each,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_SHIFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """sums (3, N, C, place blocks): over the places of a tile, of the gradient before SiLU, of it
    times the normalised value, and of the normalised value."""
    blocks, parts = tl.cdiv(G, GB), tl.cdiv(leaves, each)
    part, rest = tl.program_id(0) % parts, tl.program_id(0) // parts
    n, group = (rest // blocks).to(tl.int64), rest % blocks
    for leaf in range(part * each, tl.minimum(leaves, (part + 1) * each)):
        b_hat, b_dz, _, o_c, m_c, _ = slope_leaf(
            x + n * sn, dy + n * dsn, shift + n * shn, weight, bias, stats + n * G * 3,
            group, leaf, place_blocks, sc, ss, dsc, dss, shc, G, S,
            CG, SB, GB, CB, HAS_SHIFT, HAS_WEIGHT, HAS_BIAS, SILU,
        )  # fmt: skip
        p = sums + (n * C + o_c) * place_blocks + leaf % place_blocks
        plane = tl.cast(N, tl.int64) * C * place_blocks
        tl.store(p, tl.sum(b_dz, 0), mask=m_c)
        tl.store(p + plane, tl.sum(b_dz * b_hat, 0), mask=m_c)
        tl.store(p + 2 * plane, tl.sum(b_hat, 0), mask=m_c)


@triton.jit
def slope_leaf(
    x, dy, shift, weight, bias, stats, group, leaf, place_blocks,
    sc, ss, dsc, dss, shc, G, S,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_SHIFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """A tile's normalised values and the gradients before SiLU, zeros where nothing is."""
    o_s = (leaf % place_blocks) * SB + tl.arange(0, SB)
    o_c, m_c = tile_columns(group, leaf // place_blocks, G, CG, GB, CB)
    p = stats + (o_c // CG) * 3
    b_pivot = tl.load(p, mask=m_c, other=0.0)
    b_mean = tl.load(p + 1, mask=m_c, other=0.0)
    b_rstd = tl.load(p + 2, mask=m_c, other=0.0)
    b_d, mask = load_centred(x, shift, o_s, o_c, m_c, b_pivot, shc, ss, sc, S, CG, HAS_SHIFT)
    b_hat = finish(b_d, b_mean, b_rstd, weight, bias, o_c, m_c, False, False)
    b_hat = tl.where(mask, b_hat, 0.0)
    p = dy + o_s.to(tl.int64)[:, None] * dss + o_c.to(tl.int64)[None, :] * dsc
    b_dz = tl.load(p, mask=mask, other=0.0).to(tl.float32)
    if SILU:
        b_z = b_hat
        if HAS_WEIGHT:
            b_z *= tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
        if HAS_BIAS:
            b_z += tl.load(bias + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
        b_gate = tl.sigmoid(b_z)
        b_dz *= b_gate * (1 + b_z * (1 - b_gate))
    return b_hat, b_dz, o_s, o_c, m_c, mask


@triton.jit
def slope_merge_kernel(
    sums, weight, stats, totals, means, dshift,
    N, C, G, S, place_blocks,
    CG: tl.constexpr, CP: tl.constexpr, L: tl.constexpr,
    HAS_WEIGHT: tl.constexpr, HAS_SHIFT: tl.constexpr,
):  # fmt: skip
    """Of one group of one sample: totals (2, N, C), the gradients of bias and weight before they
    are summed over samples; means (N, G, 2) that dx needs; dshift (N, C)."""
    n, g = (tl.program_id(0) // G).to(tl.int64), tl.program_id(0) % G
    o = tl.arange(0, CP)
    o_c, m_c, o_l = g * CG + o, o < CG, tl.arange(0, L)
    plane = tl.cast(N, tl.int64) * C * place_blocks
    b_dz, b_dw, b_hat = (
        tl.zeros([CP], tl.float32), tl.zeros([CP], tl.float32), tl.zeros([CP], tl.float32),
    )  # fmt: skip
    for start in range(0, place_blocks, L):
        o_b = start + o_l
        p = sums + (n * C + o_c[:, None]) * place_blocks + o_b[None, :]
        mask = m_c[:, None] & (o_b[None, :] < place_blocks)
        b_dz += tl.sum(tl.load(p, mask=mask, other=0.0), 1)
        b_dw += tl.sum(tl.load(p + plane, mask=mask, other=0.0), 1)
        b_hat += tl.sum(tl.load(p + 2 * plane, mask=mask, other=0.0), 1)
    tl.store(totals + n * C + o_c, b_dz, mask=m_c)
    tl.store(totals + (N + n) * C + o_c, b_dw, mask=m_c)
    b_w = tl.full([CP], 1.0, tl.float32)
    if HAS_WEIGHT:
        b_w = tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)
    count = CG * tl.cast(S, tl.float32)
    mean_dz = tl.sum(b_dz * b_w, 0) / count
    mean_dw = tl.sum(b_dw * b_w, 0) / count
    tl.store(means + (n * G + g) * 2, mean_dz)
    tl.store(means + (n * G + g) * 2 + 1, mean_dw)
    if HAS_SHIFT:
        rstd = tl.load(stats + (n * G + g) * 3 + 2)
        b_ds = rstd * (b_dz * b_w - tl.cast(S, tl.float32) * mean_dz - b_hat * mean_dw)
        tl.store(dshift + n * C + o_c, b_ds.to(dshift.dtype.element_ty), mask=m_c)


@triton.jit
def dx_kernel(
    x, dy, dx, shift, weight, bias, stats, means,
    sn, sc, ss, dsn, dsc, dss, gsn, gsc, gss, shn, shc, G, S, place_blocks, leaves, each,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_SHIFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """`each` leaves of the gradient of x."""
    blocks, parts = tl.cdiv(G, GB), tl.cdiv(leaves, each)
    part, rest = tl.program_id(0) % parts, tl.program_id(0) // parts
    n, group = (rest // blocks).to(tl.int64), rest % blocks
    for leaf in range(part * each, tl.minimum(leaves, (part + 1) * each)):
        b_hat, b_dz, o_s, o_c, m_c, mask = slope_leaf(
            x + n * sn, dy + n * dsn, shift + n * shn, weight, bias, stats + n * G * 3,
            group, leaf, place_blocks, sc, ss, dsc, dss, shc, G, S,
            CG, SB, GB, CB, HAS_SHIFT, HAS_WEIGHT, HAS_BIAS, SILU,
        )  # fmt: skip
        if HAS_WEIGHT:
            b_dz *= tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
        p = n * G + o_c // CG
        b_rstd = tl.load(stats + p * 3 + 2, mask=m_c, other=0.0)
        b_mean_dz = tl.load(means + p * 2, mask=m_c, other=0.0)
        b_mean_dw = tl.load(means + p * 2 + 1, mask=m_c, other=0.0)
        b_dx = (b_dz - b_mean_dz[None, :] - b_hat * b_mean_dw[None, :]) * b_rstd[None, :]
        p = dx + n * gsn + o_s.to(tl.int64)[:, None] * gss + o_c.to(tl.int64)[None, :] * gsc
        tl.store(p, b_dx.to(dx.dtype.element_ty), mask=mask)


# ---- the op -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Everything about a launch that the shape, the layout and the device decide."""

    n: int
    c: int
    groups: int
    places: int
    cut: Tiles
    programs: int  # blocks of groups, over all samples
    processors: int

    @classmethod
    def of(cls, x: torch.Tensor, groups: int) -> Plan:
        n, c = x.shape[:2]
        places = x[0, 0].numel()
        last = places > 1 and x.stride(1) == 1
        cut = tiles(c // groups, groups, places, last, x.element_size())
        programs = n * triton.cdiv(groups, cut.groups)
        return cls(n, c, groups, places, cut, programs, multiprocessors(x.device))

    @property
    def each(self) -> int:
        return leaves_each(self.cut, self.programs, self.processors)

    @property
    def grid(self) -> tuple[int]:
        return (self.programs * triton.cdiv(self.cut.leaves, self.each),)

    @property
    def blocks(self) -> dict:
        cut = self.cut
        return {
            "CG": self.c // self.groups,
            "SB": cut.places,
            "GB": cut.groups,
            "CB": cut.channels,
            "num_warps": cut.warps,
        }


def key(plan: Plan) -> str:
    """The name of a tuned configuration."""
    cut = plan.cut
    return f"group_norm/{cut.places}x{cut.channels}x{cut.groups}/leaves{cut.leaves}"


def _one_launch(plan: Plan, device: torch.device) -> bool:
    usual = {"one_launch": one_launch(plan.cut)}
    chosen = tuned(device, key(plan), usual) or usual
    return chosen["one_launch"] and plan.cut.leaves <= LANES


def _flags(shift, weight, bias) -> dict:
    return {
        "HAS_SHIFT": shift is not None,
        "HAS_WEIGHT": weight is not None,
        "HAS_BIAS": bias is not None,
    }


def _walkable(x: torch.Tensor) -> torch.Tensor:
    """x, or a copy where no single stride walks its places."""
    return x.contiguous() if collapse(x) is None else x


def _gradient_of_shift(x: torch.Tensor, shift: torch.Tensor | None) -> torch.Tensor:
    if shift is None:
        return x.new_empty((0, x.shape[1]))
    return x.new_empty(shift.shape, dtype=shift.dtype)


@torch.library.custom_op("glassbox::group_norm", mutates_args=())
def group_norm_op(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    silu: bool,
    shift: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """y like x, and stats (N, G, 3): pivot, mean of what is centred on it, 1 / deviation."""
    x = _walkable(x)
    y = torch.empty_like(x)
    stats = torch.empty((x.shape[0], groups, 3), dtype=torch.float32, device=x.device)
    if x.numel() == 0:
        return y, stats.zero_()
    plan = Plan.of(x, groups)
    cut, flags = plan.cut, _flags(shift, weight, bias)
    xs, ys = collapse(x), collapse(y)
    hs = shift.stride() if shift is not None else (0, 0)
    w, b, h = (x if t is None else t for t in (weight, bias, shift))
    size = groups, plan.places, cut.place_blocks, cut.leaves
    lanes = max(2, triton.next_power_of_2(cut.leaves))
    with on_device_of(x):
        if _one_launch(plan, x.device):
            whole_kernel[(plan.programs,)](
                x, y, h, w, b, stats, *xs, *ys, *hs, eps, *size,
                L=lanes, SILU=silu, **flags, **plan.blocks,
            )  # fmt: skip
            return y, stats
        scratch = torch.empty((2, plan.n, groups, cut.leaves), dtype=torch.float32, device=x.device)
        leaves_kernel[plan.grid](
            x, h, *scratch.unbind(), *xs, *hs, *size, plan.each,
            HAS_SHIFT=shift is not None, **plan.blocks,
        )  # fmt: skip
        merge_kernel[(plan.n * groups,)](
            x, *scratch.unbind(), stats, *xs[:2], eps, *size,
            CG=plan.c // groups, SB=cut.places, CB=cut.channels, L=min(LANES, lanes), num_warps=1,
        )  # fmt: skip
        apply_kernel[plan.grid](
            x, y, h, w, b, stats, *xs, *ys, *hs, *size, plan.each,
            SILU=silu, **flags, **plan.blocks,
        )  # fmt: skip
    return y, stats


@group_norm_op.register_fake
def _(x, groups, weight, bias, eps, silu, shift):
    x = _walkable(x)
    return torch.empty_like(x), x.new_empty((x.shape[0], groups, 3), dtype=torch.float32)


@torch.library.custom_op("glassbox::group_norm_backward", mutates_args=())
def group_norm_backward_op(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    silu: bool,
    shift: torch.Tensor | None,
    stats: torch.Tensor,
    dy: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """dx like x; dweight and dbias (C,) fp32; dshift (N, C) like shift, empty without it."""
    x, dy = _walkable(x), _walkable(dy)
    n, c = x.shape[:2]
    dx = torch.empty_like(x)
    totals = torch.empty((2, n, c), dtype=torch.float32, device=x.device)
    dshift = _gradient_of_shift(x, shift)
    if x.numel() == 0:
        return dx, totals[1].zero_().sum(0), totals[0].zero_().sum(0), dshift.zero_()
    plan = Plan.of(x, groups)
    cut, flags = plan.cut, _flags(shift, weight, bias)
    xs, ds, gs = collapse(x), collapse(dy), collapse(dx)
    hs = shift.stride() if shift is not None else (0, 0)
    w, b, h = (x if t is None else t for t in (weight, bias, shift))
    sums = torch.empty((3, n, c, cut.place_blocks), dtype=torch.float32, device=x.device)
    means = torch.empty((n, groups, 2), dtype=torch.float32, device=x.device)
    size = groups, plan.places, cut.place_blocks, cut.leaves, plan.each
    per_group = c // groups
    padded = triton.next_power_of_2(per_group)
    with on_device_of(x):
        slope_kernel[plan.grid](
            x, dy, h, w, b, stats, sums, *xs, *ds, *hs, n, c, *size,
            SILU=silu, **flags, **plan.blocks,
        )  # fmt: skip
        slope_merge_kernel[(n * groups,)](
            sums, w, stats, totals, means, dshift, n, c, groups, plan.places, cut.place_blocks,
            CG=per_group, CP=padded,
            L=max(1, min(64, triton.next_power_of_2(cut.place_blocks), LEAF // padded)),
            HAS_WEIGHT=weight is not None, HAS_SHIFT=shift is not None,
        )  # fmt: skip
        dx_kernel[plan.grid](
            x, dy, dx, h, w, b, stats, means, *xs, *ds, *gs, *hs, *size,
            SILU=silu, **flags, **plan.blocks,
        )  # fmt: skip
    return dx, totals[1].sum(0), totals[0].sum(0), dshift


@group_norm_backward_op.register_fake
def _(x, groups, weight, bias, silu, shift, stats, dy):
    x = _walkable(x)
    per_channel = x.new_empty((x.shape[1],), dtype=torch.float32)
    dshift = _gradient_of_shift(x, shift)
    return torch.empty_like(x), per_channel, torch.empty_like(per_channel), dshift


def _save(ctx, inputs, output):
    x, groups, weight, bias, _, silu, shift = inputs
    ctx.save_for_backward(x, weight, bias, shift, output[1])
    ctx.groups, ctx.silu = groups, silu
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, dy, _):
    x, weight, bias, shift, stats = ctx.saved_tensors
    dx, dweight, dbias, dshift = group_norm_backward_op(
        x, ctx.groups, weight, bias, ctx.silu, shift, stats, dy
    )
    return (
        dx,
        None,
        None if weight is None else dweight.to(weight.dtype),
        None if bias is None else dbias.to(bias.dtype),
        None,
        None,
        None if shift is None else dshift,
    )


group_norm_op.register_autograd(_backward, setup_context=_save)


def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why GroupNorm can't run so, in one sentence; None where it can."""
    if dtype not in DTYPES:
        return f"the GroupNorm kernel takes {types()}, not {short(dtype)}."
    return device_problem(device, dtype)


def check(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    shift: torch.Tensor | None,
) -> None:
    """Raise ValueError, in one sentence, unless group_norm can take these."""
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"x must be a tensor, not {type(x).__name__}.")
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (N, C, *).")
    if x.dtype not in DTYPES:
        raise ValueError(f"x has type {short(x.dtype)}; allowed are {types()}.")
    problem = device_problem(x.device, x.dtype)
    if problem:
        raise ValueError(f"x is on {x.device}: {problem}")
    n, c = x.shape[:2]
    places = math.prod(x.shape[2:])
    if places > MAX_PLACES:
        raise ValueError(f"x has {places} places a channel; at most {MAX_PLACES} are allowed.")
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or c % groups:
        raise ValueError(f"groups is {groups}; it must divide x's {c} channels.")
    if c // groups > MAX_CHANNELS:
        raise ValueError(
            f"groups is {groups}, which makes {c // groups} channels a group of x's {c}; "
            f"at most {MAX_CHANNELS} are allowed."
        )
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps is {eps}; it must be finite and not negative.")
    for name, t, shape in (
        ("weight", weight, (c,)),
        ("bias", bias, (c,)),
        ("shift", shift, (n, c)),
    ):
        if t is None:
            continue
        if not isinstance(t, torch.Tensor):
            raise ValueError(f"{name} must be a tensor or None, not {type(t).__name__}.")
        if t.shape != shape:
            raise ValueError(f"{name} has shape {tuple(t.shape)}; with this x it must be {shape}.")
        if t.dtype not in DTYPES:
            raise ValueError(f"{name} has type {short(t.dtype)}; allowed are {types()}.")
        if t.device != x.device:
            raise ValueError(f"{name} is on {t.device}, but x is on {x.device}.")


def group_norm(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """GroupNorm of x + shift, then SiLU where asked, differentiable.

    x (N, C, *) fp16, bf16 or fp32 on a CUDA or ROCm device; weight and bias (C,) and shift (N, C)
    of any of these types. Contiguous and channels-last inputs are read as they lie and the output
    has the input's layout; other strides are copied once. Statistics, sums and the arithmetic in
    between are fp32, also under autocast; deterministic. Raises ValueError in one sentence.

    Wu and He, arXiv 1803.08494; SiLU: Elfwing et al., arXiv 1702.03118.
    """
    check(x, groups, weight, bias, eps, shift)
    weight, bias = (t if t is None else t.contiguous() for t in (weight, bias))
    return group_norm_op(x, groups, weight, bias, float(eps), silu, shift)[0]
