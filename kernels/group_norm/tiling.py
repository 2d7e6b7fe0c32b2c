"""How the work of a GroupNorm is cut into tiles and launches, chosen from shape, layout and GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from .. import verdict
from ..launch import dtype_name, multiprocessors, tuned_config

TILE = 4096  # values of a tile, of all its groups together
LANES = 64  # partials merged at once
# Most partials of a group that one program normalizes by itself, in one launch instead of three. On
# an H200 in fp16 (times in microseconds, one launch and three, of CUDA-graph replays, from
# kernels/bench/results/candidates/nvidia-h200.json):
#   contiguous     3 partials 5.6, 6.6    5 partials 8.0, 7.9    8 partials 12.1, 8.9
#                  10 partials 12.9, 10.6    16 partials 19.4, 8.8
#   channels last  1 partial 2.4, 5.3    2 partials 8.6, 8.2    4 partials 11.4, 7.1
#                  16 partials 43.2, 13.6
# Where the times are alike one launch is taken: it costs the host a third of the time.
MAX_FUSED = 5
MAX_FUSED_CHANNELS_LAST = 2
MAX_SPATIAL = 2**31 - 2 * TILE  # spatial offsets are 32 bit
MAX_CHANNELS = 1 << 16  # of a group: bwd_merge_kernel holds them all


def flat_strides(x: torch.Tensor) -> tuple[int, int, int] | None:
    """Return a kernel's strides (sample, channel, position) of x (N, C, *) seen as (N, C, S).

    S is the product of the spatial dimensions. Returns None if no single stride steps through all
    spatial positions in order; then x must be copied first.
    """
    spatial, expected = 1, None
    for size, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if size == 1:
            continue
        if expected is None:
            spatial = stride
        elif stride != expected:
            return None
        expected = stride * size
    return x.stride(0), x.stride(1), spatial


@dataclass(frozen=True)
class Tiles:
    """How x is cut into tiles of spatial x (groups x channels) values for GroupNorm.

      spatial          positions of a tile, a power of two
      channels         channels of each group in a tile, a power of two
      groups           groups in a tile, a power of two
      channel_blocks   tiles side by side that cover a group's channels
      spatial_blocks   tiles side by side that cover all positions
      warps            warps of a program
      channels_last    whether the channels of a position lie side by side in memory

    For each of its groups a tile gives the mean of its values and the sum of their squared
    deviations from it (a "partial"), which are then merged over tiles.
    """

    spatial: int
    channels: int
    groups: int
    channel_blocks: int
    spatial_blocks: int
    warps: int
    channels_last: bool

    @property
    def partials(self) -> int:
        """Number of tiles that cover a group.

        Each gives a partial result for the group, its own mean and sum of squared deviations; all
        are merged.
        """
        return self.channel_blocks * self.spatial_blocks


def choose_tiles(
    group_size: int, groups: int, spatial: int, channels_last: bool, itemsize: int
) -> Tiles:
    """Return the tiles into which a GroupNorm is cut, chosen from its sizes and layout alone.

    There are `groups` groups of `group_size` channels and `spatial` positions. In channels-last
    memory (`channels_last`) a tile has all channels of a group, up to 4096, and enough groups to
    read 64 bytes in a row at each position. itemsize: bytes of a value.
    """
    if channels_last:
        channels, together = min(triton.next_power_of_2(group_size), TILE), 1
        while together < groups and together * group_size * itemsize < 64:
            together *= 2
        block = max(1, min(triton.next_power_of_2(spatial), TILE // (channels * together)))
    else:
        together = 1
        block = min(triton.next_power_of_2(spatial), TILE)
        channels = min(triton.next_power_of_2(group_size), max(1, TILE // block))
    return Tiles(
        block,
        channels,
        together,
        triton.cdiv(group_size, channels),
        triton.cdiv(spatial, block),
        8 if block * channels * together >= 4096 else 4,
        channels_last,
    )


def fits_one_launch(tiles: Tiles) -> bool:
    """Return whether GroupNorm with these tiles should take one launch rather than three.

    In one launch each program normalizes whole groups; in three, several programs share a group.
    One launch is better if few tiles cover a group: up to MAX_FUSED, or MAX_FUSED_CHANNELS_LAST in
    channels-last memory, limits that were measured on an H200.
    """
    most = MAX_FUSED_CHANNELS_LAST if tiles.channels_last else MAX_FUSED
    return tiles.partials <= most


def partials_per_program(tiles: Tiles, programs: int, processors: int) -> int:
    """Return how many tiles each program of a GroupNorm kernel computes if programs share groups.

    The number is chosen so that each of the GPU's multiprocessors gets about four programs, if
    there are enough tiles. tiles: how x is cut into tiles. programs: how many programs there would
    be if each computed whole groups. processors: number of the GPU's multiprocessors.
    """
    wanted = max(1, 4 * processors // max(1, programs))
    return max(1, triton.cdiv(tiles.partials, wanted))


@dataclass(frozen=True)
class Plan:
    """How GroupNorm is launched for one tensor: its sizes, tiles and numbers of programs.

    n, c, groups   samples, channels, groups
    spatial        spatial positions, the product of the dimensions after C
    tiles          sizes and numbers of tiles
    programs       programs of a launch in which each computes whole groups (tiles.groups of them)
    processors     multiprocessors of the GPU
    """

    n: int
    c: int
    groups: int
    spatial: int
    tiles: Tiles
    programs: int
    processors: int

    @classmethod
    def of(cls, x: torch.Tensor, groups: int) -> Plan:
        """Return how to launch GroupNorm of x (N, C, *), which is not empty, in `groups` groups."""
        n, c = x.shape[:2]
        spatial = x[0, 0].numel()
        last = is_channels_last(x)
        tiles = choose_tiles(c // groups, groups, spatial, last, x.element_size())
        programs = n * triton.cdiv(groups, tiles.groups)
        return cls(n, c, groups, spatial, tiles, programs, multiprocessors(x.device))

    @property
    def per_program(self) -> int:
        """How many of a group's tiles each program computes if several programs share a group."""
        return partials_per_program(self.tiles, self.programs, self.processors)

    @property
    def grid(self) -> tuple[int]:
        """The launch grid of the kernels in which several programs share each group."""
        return (self.programs * triton.cdiv(self.tiles.partials, self.per_program),)

    @property
    def blocks(self) -> dict[str, int]:
        """Keyword arguments of the kernels that process tiles: CG, SB, GB, CB and num_warps.

        CG is the number of channels of a group; a tile has SB positions of CB channels of each of
        GB groups.
        """
        tiles = self.tiles
        return {
            "CG": self.c // self.groups,
            "SB": tiles.spatial,
            "GB": tiles.groups,
            "CB": tiles.channels,
            "num_warps": tiles.warps,
        }


def key(plan: Plan) -> str:
    """Return the name under which the GPU's file in kernels/tuned has a tuned configuration.

    In "group_norm/4096x1x1/parts10" the numbers are positions, channels and groups of a tile, and
    how many tiles cover a group.
    """
    tiles = plan.tiles
    return f"group_norm/{tiles.spatial}x{tiles.channels}x{tiles.groups}/parts{tiles.partials}"


def place(mode: str, channels_last: bool, dtype: torch.dtype) -> str:
    """Return the name for which `kernels.check` stores results: "group_norm/forward/NHWC/float16".

    mode: "forward" or "backward".
    """
    return f"group_norm/{mode}/{'NHWC' if channels_last else 'NCHW'}/{dtype_name(dtype)}"


def is_channels_last(x: torch.Tensor) -> bool:
    """Return whether the channels of one position of x (N, C, *) lie side by side in memory."""
    return x[0, 0].numel() > 1 and x.stride(1) == 1


def use_one_launch(plan: Plan, x: torch.Tensor) -> bool:
    """Return whether to compute GroupNorm of x in one launch (True) or in three (False).

    The preferred choice is the one tuned for this GPU; if there is none, that of `fits_one_launch`.
    If `python -m kernels.check` found it wrong on this GPU, the next choice that was right is
    taken. If all were wrong, NoRightConfiguration is raised. If nothing was checked, the preferred
    one is taken. plan: how GroupNorm is cut into tiles. One launch is only possible up to 64 tiles
    a group.
    """
    possible = plan.tiles.partials <= LANES
    usual = {"one_launch": possible and fits_one_launch(plan.tiles)}

    def tuned() -> dict[str, bool] | None:
        config = tuned_config(x.device, key(plan), usual)
        return config if config is None or possible else {"one_launch": False}

    candidates = (tuned, usual, {"one_launch": possible and not usual["one_launch"]})
    where = place("forward", is_channels_last(x), x.dtype)
    return verdict.choose(x.device, where, candidates)["one_launch"]
