"""Words that look where their things are: what the composer knows about a scene, told to attention.

A UNet that learns from pictures alone may put what a name means anywhere among its words, because
every key has heard the whole sentence. Then its word maps say little, and two things are easily
taken for each other. A second loss asks that the attention to a thing's name falls on the thing:
Wang et al., "TokenCompose", arXiv 2312.03626, with squares in place of segmented outlines.
"""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate
from transformers import CLIPTokenizer

from ...prompt.text import space_han
from .scenes import Scene, squares

WEIGHT = 1.0  # beside the denoising loss
GRID = 16  # cells a side in which the squares are told
MOST = 2  # things of a scene


class Placement:
    """Hears the maps of one forward pass, and says how far names look beside their things."""

    def __init__(self, tokenizer: CLIPTokenizer):
        self.tokenizer = tokenizer
        self.names: dict[str, list[int]] = {}
        self.maps: list[torch.Tensor] = []

    def __call__(self, maps: torch.Tensor) -> None:
        """maps (B, Tq, Tk) of one layer, see backends.AttentionProcessor."""
        self.maps.append(maps)

    def ids(self, name: str) -> list[int]:
        if name not in self.names:
            told = self.tokenizer(space_han(name), add_special_tokens=False)
            self.names[name] = told.input_ids
        return self.names[name]

    def keys(self, ids: torch.Tensor, names: list[tuple[str, ...]]) -> torch.Tensor:
        """Which keys are a thing's name, (B, MOST, Tk) of 0 and 1; all 0 where there is none."""
        out = torch.zeros(len(names), MOST, ids.shape[1])
        for row, (sentence, called) in enumerate(zip(ids.tolist(), names, strict=True)):
            for thing, name in enumerate(called):
                place = find(sentence, self.ids(name))
                if place is not None:
                    out[row, thing, place : place + len(self.ids(name))] = 1
        return out

    def loss(
        self, ids: torch.Tensor, names: list[tuple[str, ...]], scenes: list[Scene]
    ) -> torch.Tensor:
        """Mean over layers and things of (1 - share of the name's map on the thing)^2; forgets the
        maps. ids (B, Tk) of the captions; names: of each scene's things, () for an empty caption.
        """
        layers, self.maps = self.maps, []
        device = layers[0].device
        keys = self.keys(ids, names).to(device)
        cells = torch.zeros(len(scenes), MOST, GRID, GRID)
        for row, scene in enumerate(scenes):
            cells[row, : len(scene.things)] = squares(scene, GRID)
        cells = cells.to(device)
        named = keys.any(-1)  # (B, MOST)
        parts = []
        for maps in layers:
            side = round(maps.shape[1] ** 0.5)
            where = interpolate(cells, (side, side), mode="area").flatten(2)  # (B, MOST, Tq)
            seen = keys @ maps.float().transpose(1, 2)  # (B, MOST, Tq)
            share = (seen * where).sum(-1) / seen.sum(-1).clamp(min=1e-6)
            parts.append(((1 - share).square() * named).sum() / named.sum().clamp(min=1))
        return torch.stack(parts).mean()


def find(sentence: list[int], name: list[int]) -> int | None:
    """Where `name` begins in `sentence`, or None."""
    for i in range(len(sentence) - len(name) + 1):
        if sentence[i : i + len(name)] == name:
            return i
    return None
