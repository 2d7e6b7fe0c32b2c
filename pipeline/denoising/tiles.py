"""A network on a picture larger than it was made for: overlapping pieces, blended without a seam.

At each step every piece is predicted by itself and the predictions are averaged, with weights that
fall to nothing at a piece's border, so no piece ends anywhere. MultiDiffusion, Bar-Tal et al.,
arXiv 2302.08113; the weights as in Mixture of Diffusers, Jimenez, arXiv 2302.02412.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def places(length: int, side: int, overlap: int) -> list[int]:
    """Where pieces of `side` begin, so that they cover `length` and overlap by `overlap` or more,
    evenly spread."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def window(length: int) -> torch.Tensor:
    """Weights (length,) that rise from the border to the middle, never zero."""
    at = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return torch.sin(torch.pi * at).square().clamp(min=1e-3).float()


def blended(
    call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, side: int, overlap: int
) -> torch.Tensor:
    """`call`, which takes pieces (B, C, side, side) at most, on x (B, C, h, w)."""
    h, w = x.shape[-2:]
    if h <= side and w <= side:
        return call(x)
    total, weights = None, torch.zeros((1, 1, h, w), device=x.device)
    for top in places(h, side, overlap):
        for left in places(w, side, overlap):
            rows, columns = slice(top, top + side), slice(left, left + side)
            piece = call(x[..., rows, columns]).float()
            weight = window(piece.shape[-2])[:, None] * window(piece.shape[-1])
            weight = weight.to(x.device)
            if total is None:
                total = torch.zeros((*piece.shape[:2], h, w), device=x.device)
            total[..., rows, columns] += piece * weight
            weights[..., rows, columns] += weight
    return (total / weights).to(x.dtype)
