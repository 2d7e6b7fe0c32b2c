"""What the GroupNorm kernels share: loading tiles, their partials, sums and broadcasts by group.

Names in the kernels: b_ block in registers, p_ pointers, o_ offsets, m_ mask; G groups of CG
channels and S spatial positions; s?n, s?c, s?s are the strides of sample, channel and position of
the tensor "?", stn and stc those of temb_bias (N, C). A tile is [SB, GB * CB]: SB positions of GB
groups, CB channels each. stats (N, G, 3) holds each group's pivot, its mean relative to that, and
1 / sqrt(variance + eps).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_columns(group, block, G, CG: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr):
    """Return the channel of each column of a tile and whether it exists, [GB * CB] both.

    group: index of the block of groups; block: index of the block of channels in a group.
    """
    o = tl.arange(0, GB * CB)
    o_g = group * GB + o // CB
    o_in = block * CB + o % CB
    return o_g * CG + o_in, (o_g < G) & (o_in < CG)


@triton.jit
def load_centred(
    x, temb_bias, o_s, o_c, m_c, b_pivot, stc, sxs, sxc, S,
    CG: tl.constexpr, HAS_TEMB: tl.constexpr,
):  # fmt: skip
    """Return x - pivot + (temb_bias - first), fp32, and which values exist, both [SB, GB * CB].

    b_pivot [GB * CB]; first: temb_bias of the group's first channel.
    """
    m_x = (o_s[:, None] < S) & m_c[None, :]
    p_x = x + o_s.to(tl.int64)[:, None] * sxs + o_c.to(tl.int64)[None, :] * sxc
    b_x = tl.load(p_x, mask=m_x, other=0.0).to(tl.float32) - b_pivot[None, :]
    if HAS_TEMB:
        b_temb = tl.load(temb_bias + o_c.to(tl.int64) * stc, mask=m_c, other=0.0).to(tl.float32)
        o_first = (o_c // CG * CG).to(tl.int64)
        b_first = tl.load(temb_bias + o_first * stc, mask=m_c, other=0.0).to(tl.float32)
        b_x += (b_temb - b_first)[None, :]
    return b_x, m_x


@triton.jit
def load_pivot(x, o_g, G, sxc, CG: tl.constexpr):
    """Return the pivot of each group, its first value, [GB]."""
    return tl.load(x + (o_g * CG).to(tl.int64) * sxc, mask=o_g < G, other=0.0).to(tl.float32)


@triton.jit
def broadcast_groups(b_g, GB: tl.constexpr, CB: tl.constexpr):
    """Return b_g [GB], one value a group, repeated for the columns of a tile, [GB * CB]."""
    return tl.reshape(tl.broadcast_to(b_g[:, None], (GB, CB)), (GB * CB,))


@triton.jit
def sum_groups(b_x, GB: tl.constexpr, CB: tl.constexpr):
    """Return the sum of b_x [SB, GB * CB] over each group, [GB]."""
    return tl.sum(tl.reshape(tl.sum(b_x, 0), (GB, CB)), 1)


@triton.jit
def tile_count(tile, spatial_blocks, S, CG, SB: tl.constexpr, CB: tl.constexpr):
    """Return how many values of a group a tile has, fp32 (at most 4096: exact); 0 past the last."""
    channels = tl.minimum(CB, CG - (tile // spatial_blocks) * CB)
    spatial = tl.minimum(SB, S - (tile % spatial_blocks) * SB)
    return tl.cast(tl.maximum(channels, 0) * spatial, tl.float32)


@triton.jit
def partial_stats(b_d, m_x, count, GB: tl.constexpr, CB: tl.constexpr):
    """Return the partial of a tile b_d of `count` values a group: mean and m2, [GB] both.

    mean = sum(d) / count, m2 = sum((d - mean)^2)
    """
    b_mean = sum_groups(tl.where(m_x, b_d, 0.0), GB, CB) / count
    b_r = tl.where(m_x, b_d - broadcast_groups(b_mean, GB, CB)[None, :], 0.0)
    return b_mean, sum_groups(b_r * b_r, GB, CB)


@triton.jit
def normalize(
    b_d, b_mean, b_rstd, weight, bias, o_c, m_c,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Return (d - mean) rstd weight + bias, [SB, GB * CB]; b_mean and b_rstd [GB * CB]."""
    b_y = (b_d - b_mean[None, :]) * b_rstd[None, :]
    if HAS_WEIGHT:
        b_y *= tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        b_y += tl.load(bias + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
    return b_y
