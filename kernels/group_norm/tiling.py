"""How a GroupNorm is cut into tiles and its launches, from the shape, layout and GPU alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from ..launch import multiprocessors, tuned_config

TILE = 4096  # values of a tile, all its groups together
LANES = 64  # partials merged at once
MAX_FUSED = 16  # partials of a group that one program computes in turn
MAX_SPATIAL = 2**31 - 2 * TILE  # spatial offsets are 32 bit
MAX_CHANNELS = 1 << 16  # of a group: backward sums them in one tile


def flat_strides(x: torch.Tensor) -> tuple[int, int, int] | None:
    """Return the strides (sample, channel, spatial) of x (N, C, *) seen as (N, C, S).

    None where no single stride reaches all spatial positions in order.
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
    """The tiles of a shape: `spatial` x (`groups` x `channels`) values each, powers of two.

    `channel_blocks` times `spatial_blocks` tiles cover a group. Each gives one partial: the mean
    and the squared deviations of its values.
    """

    spatial: int
    channels: int
    groups: int
    channel_blocks: int
    spatial_blocks: int
    warps: int

    @property
    def partials(self) -> int:
        """Number of tiles, and so of partials, of a group."""
        return self.channel_blocks * self.spatial_blocks


def choose_tiles(
    group_size: int, groups: int, spatial: int, channels_last: bool, itemsize: int
) -> Tiles:
    """Return the tiles of `groups` groups of `group_size` channels and `spatial` positions.

    Where channels lie side by side (`channels_last`), a tile takes whole groups of up to 4096
    channels, and as many as make 64 bytes a position, so that memory is read in full sectors.
    itemsize: bytes of a value.
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
    )


def fits_one_launch(tiles: Tiles) -> bool:
    """Return whether one program should normalize a whole group.

    With few partials, two more launches would cost more than they save.
    """
    return tiles.partials <= MAX_FUSED


def partials_per_program(tiles: Tiles, programs: int, processors: int) -> int:
    """Return how many partials of a group a program computes where the work is split.

    Chosen so that each of the `processors` (multiprocessors) gets about four programs. programs:
    blocks of groups, over all samples.
    """
    wanted = max(1, 4 * processors // max(1, programs))
    return max(1, triton.cdiv(tiles.partials, wanted))


@dataclass(frozen=True)
class Plan:
    """What the shape, the layout and the device decide about the launches for one tensor."""

    n: int
    c: int
    groups: int
    spatial: int
    tiles: Tiles
    programs: int  # blocks of groups, over all samples
    processors: int

    @classmethod
    def of(cls, x: torch.Tensor, groups: int) -> Plan:
        """Return the plan for x (N, C, *), not empty, in `groups` groups."""
        n, c = x.shape[:2]
        spatial = x[0, 0].numel()
        channels_last = spatial > 1 and x.stride(1) == 1
        tiles = choose_tiles(c // groups, groups, spatial, channels_last, x.element_size())
        programs = n * triton.cdiv(groups, tiles.groups)
        return cls(n, c, groups, spatial, tiles, programs, multiprocessors(x.device))

    @property
    def per_program(self) -> int:
        """Partials of a group that a program computes where the work is split."""
        return partials_per_program(self.tiles, self.programs, self.processors)

    @property
    def grid(self) -> tuple[int]:
        """The launch grid where the work is split."""
        return (self.programs * triton.cdiv(self.tiles.partials, self.per_program),)

    @property
    def blocks(self) -> dict[str, int]:
        """The kernels' block sizes and warps, by the names of their arguments."""
        tiles = self.tiles
        return {
            "CG": self.c // self.groups,
            "SB": tiles.spatial,
            "GB": tiles.groups,
            "CB": tiles.channels,
            "num_warps": tiles.warps,
        }


def key(plan: Plan) -> str:
    """Return the key of a configuration in a file of kernels/tuned."""
    tiles = plan.tiles
    return f"group_norm/{tiles.spatial}x{tiles.channels}x{tiles.groups}/parts{tiles.partials}"


def use_one_launch(plan: Plan, device: torch.device) -> bool:
    """Return whether to take one launch: as tuned for this GPU, else by `fits_one_launch`."""
    usual = {"one_launch": fits_one_launch(plan.tiles)}
    chosen = tuned_config(device, key(plan), usual) or usual
    return chosen["one_launch"] and plan.tiles.partials <= LANES
