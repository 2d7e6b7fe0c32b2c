"""Word maps of layers of several resolutions."""

import torch

from pipeline.denoising.attention_maps import WordMaps


def test_maps_of_layers_are_brought_to_one_grid():
    maps_of = WordMaps(64, 96)  # latents of a picture that is wider than high
    for rows, columns in ((64, 96), (16, 24), (8, 12)):
        maps = torch.zeros(2, rows * columns, 3)
        maps[1, :, 0] = 1  # the first key everywhere
        grid = maps[1, :, 1].view(rows, columns)
        grid[:, : columns // 2] = 1  # the second in the left half
        maps[0] = 7  # the unconditional picture is not looked at
        maps_of(maps)
    keys = maps_of.average([[0], [1], [2]])
    assert keys.shape == (3, 16, 24)
    assert torch.allclose(keys[0], torch.ones(16, 24), atol=1e-5) and (keys[2] == 0).all()
    assert keys[1, :, :10].min() > 0.9 and keys[1, :, 14:].max() < 0.1
    assert torch.allclose(maps_of.average([[0, 1]])[0], keys[0] + keys[1])
    grids = maps_of.by_resolution([[0], [1], [2]])
    assert [g.shape[1:] for g in grids] == [(8, 12), (16, 24), (64, 96)]  # each as its layer had it
    assert all((g[1, :, : g.shape[2] // 2] == 1).all() and g[1].mean() == 0.5 for g in grids)
    assert WordMaps(8, 8).average([[0]]) is None
