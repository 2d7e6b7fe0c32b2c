"""Apply a network to latents that are larger than it was trained for, in overlapping tiles.

The network is called for each tile, and the outputs are averaged with weights that fall towards a
tile's border, so that no seams are visible. MultiDiffusion, Bar-Tal et al., arXiv 2302.08113; the
weights as in Mixture of Diffusers, Jimenez, arXiv 2302.02412.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def tile_starts(length: int, side: int, overlap: int) -> list[int]:
    """Return the start offsets of evenly spread tiles that cover `length` in one dimension.

    They divide latents larger than the UNet was trained for. side: length of a tile. overlap:
    minimum overlap of neighbouring tiles, less than `side`.
    """
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def tile_weights(length: int) -> torch.Tensor:
    """Return weights (length,) fp32 by which overlapping tiles are averaged in one dimension.

    They are sin^2, highest in the middle, and at least 0.001 at the border, so that no seam is
    visible.
    """
    at = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return torch.sin(torch.pi * at).square().clamp(min=1e-3).float()


def apply_tiled(
    network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, side: int, overlap: int
) -> torch.Tensor:
    """Apply `network` to x (B, C, h, w) in overlapping tiles; return the blended output.

    network: maps a tile (B, C, h', w') of at most side x side to an output of the same height and
    width. overlap: minimum overlap of tiles, in elements of x. If x is not larger than a tile,
    `network` is called once.
    """
    h, w = x.shape[-2:]
    if h <= side and w <= side:
        return network(x)
    total, weights = None, torch.zeros((1, 1, h, w), device=x.device)
    for top in tile_starts(h, side, overlap):
        for left in tile_starts(w, side, overlap):
            rows, columns = slice(top, top + side), slice(left, left + side)
            tile = network(x[..., rows, columns]).float()
            weight = tile_weights(tile.shape[-2])[:, None] * tile_weights(tile.shape[-1])
            weight = weight.to(x.device)
            if total is None:
                total = torch.zeros((*tile.shape[:2], h, w), device=x.device)
            total[..., rows, columns] += tile * weight
            weights[..., rows, columns] += weight
    assert total is not None  # there is at least one tile
    return (total / weights).to(x.dtype)
