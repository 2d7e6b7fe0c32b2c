"""Tiles: every place is covered, and what is drawn tile by tile has no seam."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.denoising import tiles


@given(st.integers(1, 300), st.integers(2, 64), st.data())
def test_pieces_cover_all_and_overlap_enough(length, side, data):
    overlap = data.draw(st.integers(0, side - 1))
    starts = tiles.tile_starts(length, side, overlap)
    covered = {i for start in starts for i in range(start, min(start + side, length))}
    assert covered == set(range(length))
    assert starts[0] == 0
    for first, second in itertools.pairwise(starts):
        assert 0 < second - first <= side - overlap
    if length > side:
        assert starts[-1] + side == length


def test_what_fits_is_one_call():
    x = torch.randn(2, 4, 8, 8)
    seen = []
    assert torch.equal(tiles.apply_tiled(lambda p: seen.append(p.shape) or p * 2, x, 8, 4), x * 2)
    assert seen == [(2, 4, 8, 8)]


@pytest.mark.parametrize("size", [(16, 16), (8, 21), (19, 9), (33, 17)])
def test_a_pointwise_network_gives_what_it_gives_at_once(size):
    x = torch.randn(2, 9, *size)
    out = tiles.apply_tiled(lambda piece: piece[:, :4].sin(), x, 8, 4)
    assert out.shape == (2, 4, *size)
    assert torch.allclose(out, x[:, :4].sin(), atol=1e-5)


def test_pieces_that_disagree_melt_into_each_other():
    """Each piece is one shade: no step between neighbours is more than a share of the difference,
    where tiles laid side by side would jump by all of it."""
    shades = iter([0.0, 1.0, 0.0])
    x = torch.zeros(1, 1, 16, 32)
    out = tiles.apply_tiled(lambda piece: torch.full_like(piece, next(shades)), x, 16, 8)
    steps = out[0, 0].diff(dim=1).abs()
    assert out.min() < 0.01 and out.max() > 0.9
    assert steps.max() < 0.3
