"""The forward kernels of GroupNorm and their launch.

If a group is small, `fused_fwd_kernel` does everything in one launch; else `partials_kernel`,
`merge_kernel` and `apply_kernel` run in turn. Both ways compute the same partials and merge them in
the same order, so their results have the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..launch import device_guard
from .blocks import (
    broadcast_groups,
    load_centred,
    load_pivot,
    normalize,
    optional_inputs,
    partial_stats,
    tile_columns,
    tile_count,
)
from .tiling import LANES, Plan, flat_strides, use_one_launch


@triton.jit
def halve(b_x, L: tl.constexpr, GB: tl.constexpr):
    """Return the even and the odd rows of b_x [L, GB], each [L / 2, GB], for `merge` to pair."""
    return tl.split(tl.permute(tl.reshape(b_x, (L // 2, 2, GB)), (0, 2, 1)))


@triton.jit
def merge(b_n, b_mean, b_m2, L: tl.constexpr, GB: tl.constexpr):
    """Merge the statistics of L tiles, each [L, GB], into those of all their values, [1, GB].

    b_n, b_mean, b_m2: number of values, mean and sum of squared deviations from the mean, for each
    tile and each of GB groups. Returned are the same three. They are merged in pairs along a tree;
    of two tiles, with n = n0 + n1 and delta = mean1 - mean0 (Chan, Golub, LeVeque 1979):
      mean = mean0 + delta n1 / n
      m2 = m20 + m21 + delta^2 n0 n1 / n
    """
    if L == 1:
        return b_n, b_mean, b_m2
    else:
        n0, n1 = halve(b_n, L, GB)
        mean0, mean1 = halve(b_mean, L, GB)
        m20, m21 = halve(b_m2, L, GB)
        n = n0 + n1
        share = tl.where(n > 0, n1 / tl.maximum(n, 1.0), 0.0)  # n1 / n
        delta = mean1 - mean0
        mean = mean0 + delta * share
        m2 = m20 + m21 + delta * delta * n0 * share
        return merge(n, mean, m2, L // 2, GB)


@triton.jit
def apply_tile(
    x, y, temb_bias, weight, bias, b_pivot, b_mean, b_rstd, group, tile, spatial_blocks,
    sxs, sxc, sys, syc, stc, G, S,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_TEMB: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Compute and store a tile of y = (x + temb_bias - mean) rstd weight + bias; SiLU if SILU.

    A tile has SB positions of CB channels of each of GB groups. b_pivot, b_mean and b_rstd, [GB],
    are the statistics of the groups: first value, mean minus it, 1 / sqrt(variance + eps). group:
    index of the block of GB groups. tile: index of the tile in these groups, of which
    spatial_blocks lie side by side along the positions. x, y and temb_bias point to one sample;
    sxs, sxc, sys, syc, stc are their strides by position (s) and channel (c). G, CG, S: groups,
    channels of a group, positions. HAS_...: whether the tensor exists; else its pointer is not
    read.
    """
    o_s = (tile % spatial_blocks) * SB + tl.arange(0, SB)
    o_c, m_c = tile_columns(group, tile // spatial_blocks, G, CG, GB, CB)
    b_pivots = broadcast_groups(b_pivot, GB, CB)
    b_d, m_x = load_centred(x, temb_bias, o_s, o_c, m_c, b_pivots, stc, sxs, sxc, S, CG, HAS_TEMB)
    # y = (d - mean) rstd weight + bias, y sigmoid(y) if SILU; d = x - pivot + temb_bias - first
    b_y = normalize(
        b_d, broadcast_groups(b_mean, GB, CB), broadcast_groups(b_rstd, GB, CB),
        weight, bias, o_c, m_c, HAS_WEIGHT, HAS_BIAS,
    )  # fmt: skip
    if SILU:
        b_y = b_y * tl.sigmoid(b_y)
    p_y = y + o_s.to(tl.int64)[:, None] * sys + o_c.to(tl.int64)[None, :] * syc
    tl.store(p_y, b_y.to(y.dtype.element_ty), mask=m_x)


@triton.jit
def store_stats(stats, o_g, G, b_pivot, b_mean, b_rstd):
    """Store pivot, mean and rstd, [GB] each, of the groups o_g to stats (G, 3) of one sample.

    pivot is a group's first value, mean that of its values minus the pivot, rstd 1 / sqrt(variance
    + eps). The backward pass reads them.
    """
    tl.store(stats + o_g * 3, b_pivot, mask=o_g < G)
    tl.store(stats + o_g * 3 + 1, b_mean, mask=o_g < G)
    tl.store(stats + o_g * 3 + 2, b_rstd, mask=o_g < G)


@triton.jit
def fused_fwd_kernel(
    x, y, temb_bias, weight, bias, stats,
    sxn, sxc, sxs, syn, syc, sys, stn, stc,
    eps, G, S, spatial_blocks, partials,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr, L: tl.constexpr,
    HAS_TEMB: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Compute y, GroupNorm of x, and stats for GB groups of one sample: all in one launch.

    For small groups; x is read twice. First the mean and the sum of squared deviations m2 of each
    tile are computed and kept in registers, [L, GB]; they are merged, and rstd = 1 / sqrt(m2 / n +
    eps). Then each tile is read again and normalized. A tile has SB positions of CB channels of
    each of GB groups. The tiles of these groups form a grid: spatial_blocks tiles along the
    positions, partials / spatial_blocks along the channels. L is `partials` rounded up to a power
    of two, at least 2.

    x, y: (N, C, S), with strides sxn, sxc, sxs and syn, syc, sys. temb_bias (N, C), strides stn,
    stc, is added to x first. stats (N, G, 3): a group's first value, its mean minus that, rstd. G,
    CG, S: groups, channels of a group, positions. HAS_...: whether the tensor exists; SILU: SiLU
    follows.
    """
    # Program i has block i % blocks of the groups of sample i // blocks.
    blocks = tl.cdiv(G, GB)
    n, group = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    x += n * sxn
    y += n * syn
    temb_bias += n * stn
    o_g, o_l = group * GB + tl.arange(0, GB), tl.arange(0, L)
    b_pivot = load_pivot(x, o_g, G, sxc, CG)
    # For each tile: mean = sum(d) / n, m2 = sum((d - mean)^2); they become row `tile` of [L, GB].
    b_means, b_m2s = tl.zeros([L, GB], tl.float32), tl.zeros([L, GB], tl.float32)
    for tile in range(0, partials):
        o_s = (tile % spatial_blocks) * SB + tl.arange(0, SB)
        o_c, m_c = tile_columns(group, tile // spatial_blocks, G, CG, GB, CB)
        b_pivots = broadcast_groups(b_pivot, GB, CB)
        b_d, m_x = load_centred(
            x, temb_bias, o_s, o_c, m_c, b_pivots, stc, sxs, sxc, S, CG, HAS_TEMB
        )
        count = tile_count(tile, spatial_blocks, S, CG, SB, CB)
        b_mean, b_m2 = partial_stats(b_d, m_x, count, GB, CB)
        m_l = (o_l == tile)[:, None]  # [L, 1]
        b_means = tl.where(m_l, b_mean[None, :], b_means)
        b_m2s = tl.where(m_l, b_m2[None, :], b_m2s)
    # Merge the rows, of b_n values each, 0 past the last tile: rstd = 1 / sqrt(m2 / n + eps)
    b_n = tl.where(o_l < partials, tile_count(o_l, spatial_blocks, S, CG, SB, CB), 0.0)
    b_n = tl.broadcast_to(b_n[:, None], (L, GB))
    b_n, b_means, b_m2s = merge(b_n, b_means, b_m2s, L, GB)
    b_mean = tl.reshape(b_means, (GB,))
    b_rstd = tl.rsqrt(tl.reshape(b_m2s / b_n, (GB,)) + eps)
    store_stats(stats + n * G * 3, o_g, G, b_pivot, b_mean, b_rstd)
    # y = (d - mean) rstd weight + bias, y sigmoid(y) if SILU
    for tile in range(0, partials):
        apply_tile(
            x, y, temb_bias, weight, bias, b_pivot, b_mean, b_rstd, group, tile, spatial_blocks,
            sxs, sxc, sys, syc, stc, G, S, CG, SB, GB, CB, HAS_TEMB, HAS_WEIGHT, HAS_BIAS, SILU,
        )  # fmt: skip


@triton.jit
def partials_kernel(
    x, temb_bias, means, m2s,
    sxn, sxc, sxs, stn, stc, G, S, spatial_blocks, partials, per_program,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_TEMB: tl.constexpr,
):  # fmt: skip
    """Compute the statistics of `per_program` tiles: the first of three launches for large groups.

    Mean and sum of squared deviations of each tile and group are written to means and m2s (N, G,
    partials), fp32. A tile has SB positions of CB channels of each of GB groups. The tiles of GB
    groups of one sample form a grid: spatial_blocks tiles along the positions, partials /
    spatial_blocks along the channels.

    x: (N, C, S), strides sxn, sxc, sxs. temb_bias (N, C), strides stn, stc, is added to x first if
    HAS_TEMB. G, CG, S: groups, channels of a group, positions.
    """
    # Programs are numbered ((sample, block of GB groups), chunk of `per_program` tiles).
    blocks, chunks = tl.cdiv(G, GB), tl.cdiv(partials, per_program)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    n, group = (rest // blocks).to(tl.int64), rest % blocks
    x += n * sxn
    temb_bias += n * stn
    # For each tile: mean = sum(d) / n, m2 = sum((d - mean)^2), d = x - pivot + temb_bias - first
    o_g = group * GB + tl.arange(0, GB)
    b_pivot = load_pivot(x, o_g, G, sxc, CG)
    for tile in range(chunk * per_program, tl.minimum(partials, (chunk + 1) * per_program)):
        o_s = (tile % spatial_blocks) * SB + tl.arange(0, SB)
        o_c, m_c = tile_columns(group, tile // spatial_blocks, G, CG, GB, CB)
        b_pivots = broadcast_groups(b_pivot, GB, CB)
        b_d, m_x = load_centred(
            x, temb_bias, o_s, o_c, m_c, b_pivots, stc, sxs, sxc, S, CG, HAS_TEMB
        )
        count = tile_count(tile, spatial_blocks, S, CG, SB, CB)
        b_mean, b_m2 = partial_stats(b_d, m_x, count, GB, CB)
        o = (n * G + o_g) * partials + tile
        tl.store(means + o, b_mean, mask=o_g < G)
        tl.store(m2s + o, b_m2, mask=o_g < G)


@triton.jit
def merge_kernel(
    x, means, m2s, stats,
    sxn, sxc, eps, G, S, spatial_blocks, partials,
    CG: tl.constexpr, SB: tl.constexpr, CB: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    """Merge the tiles' statistics of one group of one sample: the second launch for large groups.

    means and m2s (N, G, partials), from `partials_kernel`: mean and sum of squared deviations of
    each of the tiles of SB positions and CB channels that cover a group: spatial_blocks tiles along
    the positions, partials / spatial_blocks along the channels. They are read L at a time. Written
    to stats (N, G, 3) are the group's first value, its mean minus that, and 1 / sqrt(variance +
    eps). sxn, sxc: strides of x by sample and channel. G, CG, S: groups, channels of a group,
    positions.
    """
    # Program i has group i % G of sample i // G; (b_n, b_mean, b_m2) is what is merged so far.
    n, g = (tl.program_id(0) // G).to(tl.int64), tl.program_id(0) % G
    o_g, o_l = g + tl.arange(0, 1), tl.arange(0, L)
    b_pivot = load_pivot(x + n * sxn, o_g, G, sxc, CG)
    b_n, b_mean, b_m2 = (
        tl.zeros([1, 1], tl.float32), tl.zeros([1, 1], tl.float32), tl.zeros([1, 1], tl.float32),
    )  # fmt: skip
    for start in range(0, partials, L):
        # Merge L partials into one (b_n_l, b_mean_l, b_m2_l), as a tree.
        o = start + o_l
        o_p = (n * G + g) * partials + o
        b_mean_l = tl.load(means + o_p, mask=o < partials, other=0.0)
        b_m2_l = tl.load(m2s + o_p, mask=o < partials, other=0.0)
        b_n_l = tl.where(o < partials, tile_count(o, spatial_blocks, S, CG, SB, CB), 0.0)
        b_n_l, b_mean_l, b_m2_l = merge(b_n_l[:, None], b_mean_l[:, None], b_m2_l[:, None], L, 1)
        # Merge that one: delta = mean_l - mean, m2 = m2 + m2_l + delta^2 n n_l / (n + n_l),
        # mean = mean + delta n_l / (n + n_l), n = n + n_l
        total = b_n + b_n_l
        share, delta = b_n_l / total, b_mean_l - b_mean
        b_m2 += b_m2_l + delta * delta * b_n * share
        b_mean += delta * share
        b_n = total
    # rstd = 1 / sqrt(m2 / n + eps)
    b_rstd = tl.rsqrt(tl.reshape(b_m2 / b_n, (1,)) + eps)
    store_stats(stats + n * G * 3, o_g, G, b_pivot, tl.reshape(b_mean, (1,)), b_rstd)


@triton.jit
def apply_kernel(
    x, y, temb_bias, weight, bias, stats,
    sxn, sxc, sxs, syn, syc, sys, stn, stc, G, S, spatial_blocks, partials, per_program,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_TEMB: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Compute GroupNorm's output y from x and the statistics of its groups; SiLU follows if SILU.

    It is the last of the three launches for large groups. One program computes `per_program` tiles.
    A tile has SB positions of CB channels of each of GB groups. The tiles of GB groups of one
    sample form a grid: spatial_blocks tiles along the positions, partials / spatial_blocks along
    the channels.

    stats (N, G, 3), from `merge_kernel`: for each group its first value, its mean minus that value,
    and 1 / sqrt(variance + eps). x, y: (N, C, S), with strides sxn, sxc, sxs and syn, syc, sys.
    temb_bias (N, C), strides stn, stc, is added to x first. G, CG, S: groups, channels of a group,
    positions. HAS_...: whether the tensor exists; else its pointer is not read.
    """
    # Programs are numbered ((sample, block of GB groups), chunk of `per_program` tiles).
    blocks, chunks = tl.cdiv(G, GB), tl.cdiv(partials, per_program)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    n, group = (rest // blocks).to(tl.int64), rest % blocks
    o_g = group * GB + tl.arange(0, GB)
    p_stats = stats + (n * G + o_g) * 3
    b_pivot = tl.load(p_stats, mask=o_g < G, other=0.0)
    b_mean = tl.load(p_stats + 1, mask=o_g < G, other=0.0)
    b_rstd = tl.load(p_stats + 2, mask=o_g < G, other=0.0)
    # y = (d - mean) rstd weight + bias, y sigmoid(y) if SILU
    for tile in range(chunk * per_program, tl.minimum(partials, (chunk + 1) * per_program)):
        apply_tile(
            x + n * sxn, y + n * syn, temb_bias + n * stn, weight, bias, b_pivot, b_mean, b_rstd,
            group, tile, spatial_blocks, sxs, sxc, sys, syc, stc, G, S,
            CG, SB, GB, CB, HAS_TEMB, HAS_WEIGHT, HAS_BIAS, SILU,
        )  # fmt: skip


def launch_forward(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    silu: bool,
    temb_bias: torch.Tensor | None,
    y: torch.Tensor,
    stats: torch.Tensor,
) -> None:
    """Compute GroupNorm of x (N, C, *) and write y, shaped like x, and stats (N, G, 3), fp32.

    x is not empty; x and y each have one stride through all their spatial positions. temb_bias (N,
    C), the timestep embedding, is added to x first; SiLU follows if `silu`. stats, for the backward
    pass, holds three numbers for each group: its first value, its mean minus its first value, and 1
    / sqrt(variance + eps).
    """
    plan = Plan.of(x, groups)
    tiles = plan.tiles
    x_strides, y_strides = flat_strides(x), flat_strides(y)
    assert x_strides and y_strides
    temb, w, b, temb_strides, flags = optional_inputs(x, temb_bias, weight, bias)
    size = groups, plan.spatial, tiles.spatial_blocks, tiles.partials
    lanes = max(2, triton.next_power_of_2(tiles.partials))
    with device_guard(x):
        if use_one_launch(plan, x):
            fused_fwd_kernel[(plan.programs,)](
                x, y, temb, w, b, stats, *x_strides, *y_strides, *temb_strides, eps, *size,
                L=lanes, SILU=silu, **flags, **plan.blocks,
            )  # fmt: skip
            return
        means, m2s = torch.empty(
            (2, plan.n, groups, tiles.partials), dtype=torch.float32, device=x.device
        ).unbind()
        partials_kernel[plan.grid](
            x, temb, means, m2s, *x_strides, *temb_strides, *size, plan.per_program,
            HAS_TEMB=flags["HAS_TEMB"], **plan.blocks,
        )  # fmt: skip
        merge_kernel[(plan.n * groups,)](
            x, means, m2s, stats, *x_strides[:2], eps, *size, CG=plan.c // groups,
            SB=tiles.spatial, CB=tiles.channels, L=min(LANES, lanes), num_warps=1,
        )  # fmt: skip
        apply_kernel[plan.grid](
            x, y, temb, w, b, stats, *x_strides, *y_strides, *temb_strides, *size,
            plan.per_program, SILU=silu, **flags, **plan.blocks,
        )  # fmt: skip
