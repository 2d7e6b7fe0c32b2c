"""What the GroupNorm kernels share: loading tiles, sums over groups, statistics of tiles.

Names in the kernels:
  b_, p_, o_, m_           a block in registers, pointers, offsets, a mask
  N, C, G, CG, S           samples, channels, groups, channels of a group, spatial positions
  SB, GB, CB               a tile has SB positions of GB groups, CB channels of each: [SB, GB * CB]
  spatial_blocks           blocks of SB positions that cover S
  partials                 tiles that cover a group; tile i has block i % spatial_blocks of the
                           positions and block i // spatial_blocks of the channels
  per_program              tiles that one program computes
  sxn, sxc, sxs            strides of x by sample, channel and position; likewise for y, dx, dy
  stn, stc                 strides of temb_bias (N, C), which is added to x before normalizing
  stats (N, G, 3)          pivot of each group, its mean minus the pivot, 1 / sqrt(variance + eps)
  HAS_TEMB, HAS_WEIGHT, HAS_BIAS   whether these tensors exist; else their pointers are not read
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def tile_columns(group, block, G, CG: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr):
    """Return for each column of a tile its channel and whether that channel exists, both [GB * CB].

    A tile has CB channels of each of GB groups as columns; CG is the number of channels of a group,
    G that of groups. group: index of the block of GB groups. block: index of the block of CB
    channels in each group.
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
    """Load a tile of x and subtract from each value its group's first value, the pivot.

    This keeps the statistics exact where the mean is large compared with the deviation. Returns d =
    x - pivot + (temb_bias - first), fp32, and a mask of the values that exist, both [SB, GB * CB]:
    SB positions of CB channels of each of GB groups. temb_bias is the timestep embedding that is
    added to x, first its value at the group's first channel; without HAS_TEMB both are left out.
    o_s [SB]: the positions. o_c, m_c, b_pivot [GB * CB]: for each column the channel, whether it
    exists, and the pivot. sxs, sxc, stc: strides of x by position and channel, of temb_bias by
    channel. S, CG: positions, channels of a group.
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
    """Return the pivots [GB] of groups o_g of a sample: x at a group's first channel and position.

    Statistics are taken of x minus its group's pivot, so that a large mean is not rounded away. G,
    CG: groups, channels of a group. sxc: stride of x by channel.
    """
    return tl.load(x + (o_g * CG).to(tl.int64) * sxc, mask=o_g < G, other=0.0).to(tl.float32)


@triton.jit
def broadcast_groups(b_g, GB: tl.constexpr, CB: tl.constexpr):
    """Return [GB * CB]: for each column of a tile the value that b_g [GB] has for its group.

    A tile has CB channels of each of GB groups as columns.
    """
    return tl.reshape(tl.broadcast_to(b_g[:, None], (GB, CB)), (GB * CB,))


@triton.jit
def sum_groups(b_x, GB: tl.constexpr, CB: tl.constexpr):
    """Return the sums [GB] of a tile b_x [SB, GB * CB] over positions and channels of each group.

    A tile has SB positions as rows and CB channels of each of GB groups as columns.
    """
    return tl.sum(tl.reshape(tl.sum(b_x, 0), (GB, CB)), 1)


@triton.jit
def tile_count(tile, spatial_blocks, S, CG, SB: tl.constexpr, CB: tl.constexpr):
    """Return how many values of one group are in a tile, as fp32; 0 past the last tile.

    A tile covers SB of the S positions and CB of a group's CG channels, of which fewer exist at the
    edges; spatial_blocks tiles lie side by side along the positions. There are at most 4096 values,
    which fp32 holds exactly.
    """
    channels = tl.minimum(CB, CG - (tile // spatial_blocks) * CB)
    spatial = tl.minimum(SB, S - (tile % spatial_blocks) * SB)
    return tl.cast(tl.maximum(channels, 0) * spatial, tl.float32)


@triton.jit
def partial_stats(b_d, m_x, count, GB: tl.constexpr, CB: tl.constexpr):
    """Return (mean, m2), both [GB], of a tile b_d [SB, GB * CB]: partial statistics of each group.

      mean = sum(d) / count        m2 = sum((d - mean)^2)
    A tile has SB positions of CB channels of each of GB groups. count: values of each group in the
    tile. m_x: mask of the values that exist.
    """
    b_mean = sum_groups(tl.where(m_x, b_d, 0.0), GB, CB) / count
    b_r = tl.where(m_x, b_d - broadcast_groups(b_mean, GB, CB)[None, :], 0.0)
    return b_mean, sum_groups(b_r * b_r, GB, CB)


@triton.jit
def normalize(
    b_d, b_mean, b_rstd, weight, bias, o_c, m_c,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Return a tile normalized and scaled, (b_d - mean) rstd weight + bias, [SB, GB * CB].

    b_d, the tile of x minus its groups' first values, has SB positions as rows and CB channels of
    each of GB groups as columns. b_mean and b_rstd [GB * CB] are the statistics of each column's
    group. o_c: the channel of each column; m_c: False for a column without a channel. Without
    HAS_WEIGHT or HAS_BIAS, weight or bias is left out.
    """
    b_y = (b_d - b_mean[None, :]) * b_rstd[None, :]
    if HAS_WEIGHT:
        b_y *= tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        b_y += tl.load(bias + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
    return b_y


def optional_inputs(
    x: torch.Tensor,
    temb_bias: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, ...], dict[str, bool]]:
    """Return what a GroupNorm kernel is launched with for its three optional inputs.

    These are temb_bias (N, C), the timestep embedding added to x, weight (C,) and bias (C,).
    Returns five items: the three tensors, the two strides of temb_bias, and a dict with the flags
    HAS_TEMB, HAS_WEIGHT and HAS_BIAS. In place of a tensor that is None stands x, which the kernel
    then does not read.
    """
    temb, w, b = (x if t is None else t for t in (temb_bias, weight, bias))
    flags = {
        "HAS_TEMB": temb_bias is not None,
        "HAS_WEIGHT": weight is not None,
        "HAS_BIAS": bias is not None,
    }
    return temb, w, b, (0, 0) if temb_bias is None else temb_bias.stride(), flags
