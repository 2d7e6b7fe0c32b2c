"""The backward kernels of GroupNorm and their launch.

With xhat = (x + temb_bias - mean) rstd, z = xhat weight + bias and y = z sigmoid(z) (or y = z):
  dz = dy sigmoid(z) (1 + z (1 - sigmoid(z)))        (or dz = dy)
  dbias = sum of dz, dweight = sum of dz xhat        over samples and positions
  dx = (dz weight - mean(dz weight) - xhat mean(dz weight xhat)) rstd
  dtemb_bias = sum of dx over positions
where mean() is over a group. Three kernels run in turn: `bwd_partials_kernel` sums the columns
(channels) of each tile, `bwd_merge_kernel` adds up these sums, `dx_kernel` writes dx.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..launch import device_guard
from .blocks import load_centred, normalize, optional_inputs, tile_columns
from .tiling import TILE, Plan, flat_strides


@triton.jit
def bwd_partials_kernel(
    x, dy, temb_bias, weight, bias, stats, sums,
    sxn, sxc, sxs, sdyn, sdyc, sdys, stn, stc, N, C, G, S, spatial_blocks, partials, per_program,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_TEMB: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Sum dz, dz xhat and xhat over the positions of each tile: the backward pass's first kernel.

    xhat is x normalized, dz the gradient of xhat weight + bias, which is dy taken back through
    SiLU. A tile has SB positions of CB channels of each of GB groups; a program does `per_program`
    of the `partials` tiles that cover GB groups of one sample. sums (3, N, C, spatial_blocks),
    fp32, receives one value for each channel and each block of SB positions.

    x, dy: (N, C, S), strides sxn, sxc, sxs and sdyn, sdyc, sdys. temb_bias (N, C), strides stn,
    stc, is added to x first. stats (N, G, 3): from the forward pass. G, CG, S: groups, channels of
    a group, positions. HAS_...: whether the tensor exists; else its pointer is not read.
    """
    # Programs are numbered ((sample, block of GB groups), chunk of `per_program` tiles).
    blocks, chunks = tl.cdiv(G, GB), tl.cdiv(partials, per_program)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    n, group = (rest // blocks).to(tl.int64), rest % blocks
    for tile in range(chunk * per_program, tl.minimum(partials, (chunk + 1) * per_program)):
        b_xhat, b_dz, _, o_c, m_c, _ = bwd_tile(
            x + n * sxn, dy + n * sdyn, temb_bias + n * stn, weight, bias, stats + n * G * 3,
            group, tile, spatial_blocks, sxc, sxs, sdyc, sdys, stc, G, S,
            CG, SB, GB, CB, HAS_TEMB, HAS_WEIGHT, HAS_BIAS, SILU,
        )  # fmt: skip
        # For each channel: sum dz, sum dz xhat and sum xhat over the tile's positions.
        p_sums = sums + (n * C + o_c) * spatial_blocks + tile % spatial_blocks
        plane = tl.cast(N, tl.int64) * C * spatial_blocks
        tl.store(p_sums, tl.sum(b_dz, 0), mask=m_c)
        tl.store(p_sums + plane, tl.sum(b_dz * b_xhat, 0), mask=m_c)
        tl.store(p_sums + 2 * plane, tl.sum(b_xhat, 0), mask=m_c)


@triton.jit
def bwd_tile(
    x, dy, temb_bias, weight, bias, stats, group, tile, spatial_blocks,
    sxc, sxs, sdyc, sdys, stc, G, S,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_TEMB: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Return xhat and dz of one tile, zeros outside, and the tile's offsets and masks.

    xhat is x normalized, dz the gradient of xhat weight + bias, which is dy taken back through
    SiLU. A tile has SB positions of CB channels of each of GB groups. The six results, from which
    the other kernels compute sums and dx:
      xhat, dz   [SB, GB * CB], fp32
      o_s, o_c   positions [SB] and channels [GB * CB]
      m_c, m_x   whether the channel exists [GB * CB], whether the value exists [SB, GB * CB]
    group: index of the block of GB groups. tile: index of the tile in these groups, of which
    spatial_blocks lie side by side along the positions. x, dy, temb_bias and stats point to one
    sample. sxc, sxs, sdyc, sdys, stc: strides of x, dy and temb_bias by channel (c) and position
    (s). G, CG, S: groups, channels of a group, positions. HAS_...: whether the tensor exists.
    """
    o_s = (tile % spatial_blocks) * SB + tl.arange(0, SB)
    o_c, m_c = tile_columns(group, tile // spatial_blocks, G, CG, GB, CB)
    # xhat = (x - pivot + temb_bias - first - mean) rstd
    p_stats = stats + (o_c // CG) * 3
    b_pivot = tl.load(p_stats, mask=m_c, other=0.0)
    b_mean = tl.load(p_stats + 1, mask=m_c, other=0.0)
    b_rstd = tl.load(p_stats + 2, mask=m_c, other=0.0)
    b_d, m_x = load_centred(x, temb_bias, o_s, o_c, m_c, b_pivot, stc, sxs, sxc, S, CG, HAS_TEMB)
    b_xhat = normalize(b_d, b_mean, b_rstd, weight, bias, o_c, m_c, False, False)
    b_xhat = tl.where(m_x, b_xhat, 0.0)
    # dz = dy, times sigmoid(z) (1 + z (1 - sigmoid(z))) if SILU; z = xhat weight + bias
    p_dy = dy + o_s.to(tl.int64)[:, None] * sdys + o_c.to(tl.int64)[None, :] * sdyc
    b_dz = tl.load(p_dy, mask=m_x, other=0.0).to(tl.float32)
    if SILU:
        b_z = b_xhat
        if HAS_WEIGHT:
            b_z *= tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
        if HAS_BIAS:
            b_z += tl.load(bias + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
        b_gate = tl.sigmoid(b_z)
        b_dz *= b_gate * (1 + b_z * (1 - b_gate))
    return b_xhat, b_dz, o_s, o_c, m_c, m_x


@triton.jit
def bwd_merge_kernel(
    sums, weight, stats, totals, means, dtemb_bias,
    N, C, G, S, spatial_blocks,
    CG: tl.constexpr, CP: tl.constexpr, L: tl.constexpr,
    HAS_WEIGHT: tl.constexpr, HAS_TEMB: tl.constexpr,
):  # fmt: skip
    """Add up `bwd_partials_kernel`'s sums for one group of one sample: backward's second kernel.

    From these sums of dz, dz xhat and xhat (xhat is x normalized, dz the gradient of xhat weight +
    bias; S positions, CG channels of a group) it writes
      totals (2, N, C)   sum dz and sum dz xhat over positions: the gradients of bias and weight
                         before they are summed over samples
      means (N, G, 2)    mean(dz weight) and mean(dz weight xhat) over the group, for `dx_kernel`
      dtemb_bias (N, C)  rstd (sum dz weight - S mean(dz weight) - sum xhat mean(dz weight xhat))
    sums: (3, N, C, spatial_blocks). stats (N, G, 3): from the forward pass; its last value is rstd.
    CP: CG rounded up to a power of two. L: how many of a channel's sums are read at a time.
    HAS_WEIGHT, HAS_TEMB: whether weight and the timestep embedding temb_bias exist.
    """
    # Program i has group i % G of sample i // G, whose channels are o_c [CP].
    n, g = (tl.program_id(0) // G).to(tl.int64), tl.program_id(0) % G
    o = tl.arange(0, CP)
    o_c, m_c, o_l = g * CG + o, o < CG, tl.arange(0, L)
    plane = tl.cast(N, tl.int64) * C * spatial_blocks
    # sum dz, sum dz xhat and sum xhat of each channel over all positions, L blocks at a time. The L
    # sums are added up after the loop: Triton 3.6 does not compile the sum inside it for sm_90.
    b_dz = tl.zeros([CP, L], tl.float32)
    b_dzx = tl.zeros([CP, L], tl.float32)
    b_xhat = tl.zeros([CP, L], tl.float32)
    for start in range(0, spatial_blocks, L):
        o_b = start + o_l
        p_sums = sums + (n * C + o_c[:, None]) * spatial_blocks + o_b[None, :]
        m_x = m_c[:, None] & (o_b[None, :] < spatial_blocks)
        b_dz += tl.load(p_sums, mask=m_x, other=0.0)
        b_dzx += tl.load(p_sums + plane, mask=m_x, other=0.0)
        b_xhat += tl.load(p_sums + 2 * plane, mask=m_x, other=0.0)
    b_dz, b_dzx, b_xhat = tl.sum(b_dz, 1), tl.sum(b_dzx, 1), tl.sum(b_xhat, 1)
    tl.store(totals + n * C + o_c, b_dz, mask=m_c)
    tl.store(totals + (N + n) * C + o_c, b_dzx, mask=m_c)
    # mean(dz weight) and mean(dz weight xhat) over the group's CG S values
    b_w = tl.full([CP], 1.0, tl.float32)
    if HAS_WEIGHT:
        b_w = tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)
    count = CG * tl.cast(S, tl.float32)
    mean_dz = tl.sum(b_dz * b_w, 0) / count
    mean_dzx = tl.sum(b_dzx * b_w, 0) / count
    tl.store(means + (n * G + g) * 2, mean_dz)
    tl.store(means + (n * G + g) * 2 + 1, mean_dzx)
    # dtemb_bias = rstd (sum dz weight - S mean(dz weight) - sum xhat mean(dz weight xhat))
    if HAS_TEMB:
        rstd = tl.load(stats + (n * G + g) * 3 + 2)
        b_ds = rstd * (b_dz * b_w - tl.cast(S, tl.float32) * mean_dz - b_xhat * mean_dzx)
        tl.store(dtemb_bias + n * C + o_c, b_ds.to(dtemb_bias.dtype.element_ty), mask=m_c)


@triton.jit
def dx_kernel(
    x, dy, dx, temb_bias, weight, bias, stats, means,
    sxn, sxc, sxs, sdyn, sdyc, sdys, sdxn, sdxc, sdxs, stn, stc,
    G, S, spatial_blocks, partials, per_program,
    CG: tl.constexpr, SB: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr,
    HAS_TEMB: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Compute dx, the gradient of x, for `per_program` tiles: the backward pass's third kernel.

      dx = (dz weight - mean(dz weight) - xhat mean(dz weight xhat)) rstd
    xhat is x normalized, dz the gradient of xhat weight + bias, which is dy taken back through
    SiLU; means (N, G, 2) are the two means over a group, from `bwd_merge_kernel`. A tile has SB
    positions of CB channels of each of GB groups. The tiles of GB groups of one sample form a grid:
    spatial_blocks tiles along the positions, partials / spatial_blocks along the channels.

    x, dy, dx: (N, C, S), with strides sxn, sxc, sxs and so on. temb_bias (N, C), strides stn, stc,
    is added to x first. stats (N, G, 3): from the forward pass. G, CG, S: groups, channels of a
    group, positions. HAS_...: whether the tensor exists; else its pointer is not read.
    """
    # Programs are numbered ((sample, block of GB groups), chunk of `per_program` tiles).
    blocks, chunks = tl.cdiv(G, GB), tl.cdiv(partials, per_program)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    n, group = (rest // blocks).to(tl.int64), rest % blocks
    for tile in range(chunk * per_program, tl.minimum(partials, (chunk + 1) * per_program)):
        b_xhat, b_dz, o_s, o_c, m_c, m_x = bwd_tile(
            x + n * sxn, dy + n * sdyn, temb_bias + n * stn, weight, bias, stats + n * G * 3,
            group, tile, spatial_blocks, sxc, sxs, sdyc, sdys, stc, G, S,
            CG, SB, GB, CB, HAS_TEMB, HAS_WEIGHT, HAS_BIAS, SILU,
        )  # fmt: skip
        # dx = (dz weight - mean(dz weight) - xhat mean(dz weight xhat)) rstd
        if HAS_WEIGHT:
            b_dz *= tl.load(weight + o_c, mask=m_c, other=0.0).to(tl.float32)[None, :]
        o_ng = n * G + o_c // CG
        b_rstd = tl.load(stats + o_ng * 3 + 2, mask=m_c, other=0.0)
        b_mean_dz = tl.load(means + o_ng * 2, mask=m_c, other=0.0)
        b_mean_dzx = tl.load(means + o_ng * 2 + 1, mask=m_c, other=0.0)
        b_dx = (b_dz - b_mean_dz[None, :] - b_xhat * b_mean_dzx[None, :]) * b_rstd[None, :]
        p_dx = dx + n * sdxn + o_s.to(tl.int64)[:, None] * sdxs + o_c.to(tl.int64)[None, :] * sdxc
        tl.store(p_dx, b_dx.to(dx.dtype.element_ty), mask=m_x)


def launch_backward(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    silu: bool,
    temb_bias: torch.Tensor | None,
    stats: torch.Tensor,
    dy: torch.Tensor,
    dx: torch.Tensor,
    totals: torch.Tensor,
    dtemb_bias: torch.Tensor,
) -> None:
    """Compute GroupNorm's gradients with three kernels; write them to dx, totals and dtemb_bias.

    x, dy (the gradient of the output) and dx (N, C, *) are not empty, and each has one stride
    through all its spatial positions; stats (N, G, 3) is from the forward pass. totals (2, N, C),
    fp32: gradients of bias and of weight, not yet summed over samples. dtemb_bias (N, C) is written
    only if temb_bias, the timestep embedding added to x, is not None.
    """
    n, c = x.shape[:2]
    plan = Plan.of(x, groups)
    tiles = plan.tiles
    x_strides, dy_strides, dx_strides = flat_strides(x), flat_strides(dy), flat_strides(dx)
    assert x_strides and dy_strides and dx_strides
    temb, w, b, temb_strides, flags = optional_inputs(x, temb_bias, weight, bias)
    sums = torch.empty((3, n, c, tiles.spatial_blocks), dtype=torch.float32, device=x.device)
    means = torch.empty((n, groups, 2), dtype=torch.float32, device=x.device)
    size = groups, plan.spatial, tiles.spatial_blocks, tiles.partials, plan.per_program
    per_group = c // groups
    padded = triton.next_power_of_2(per_group)
    with device_guard(x):
        bwd_partials_kernel[plan.grid](
            x, dy, temb, w, b, stats, sums, *x_strides, *dy_strides, *temb_strides, n, c, *size,
            SILU=silu, **flags, **plan.blocks,
        )  # fmt: skip
        bwd_merge_kernel[(n * groups,)](
            sums, w, stats, totals, means, dtemb_bias,
            n, c, groups, plan.spatial, tiles.spatial_blocks, CG=per_group, CP=padded,
            L=max(1, min(64, triton.next_power_of_2(tiles.spatial_blocks), TILE // padded)),
            HAS_WEIGHT=flags["HAS_WEIGHT"], HAS_TEMB=flags["HAS_TEMB"],
        )  # fmt: skip
        dx_kernel[plan.grid](
            x, dy, dx, temb, w, b, stats, means,
            *x_strides, *dy_strides, *dx_strides, *temb_strides, *size,
            SILU=silu, **flags, **plan.blocks,
        )  # fmt: skip
