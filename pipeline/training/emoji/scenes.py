"""Scenes of one or two emoji on a plain background, composed as tensors.

Two objects stand in the two halves of the picture. Corners lie on the grid of the autoencoder
(8 pixels per latent), so that a moved object gives moved latents. Nothing is mirrored: letters,
clocks and flags stay readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from .sprites import load_sprites
from .vocabulary import COLOURS, RELATIONS, Vocabulary

T = TypeVar("T")

SIZE = 128  # side of a picture in pixels
SINGLE_SIDE, PAIR_SIDE = 112, 64  # side of an object's square, alone and as one of two
SINGLE_OFFSETS = (0, 8, 16)  # corner of a single object's square, multiples of the latent cell
PAIR_OFFSETS = (24, 32, 40)  # corner along the middle line; across it, a square fills its half


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    objects: indices into the vocabulary; corners: top left pixels (x, y) of the objects' squares;
    relation: of the first object to the second, a key of RELATIONS; colour: a key of COLOURS;
    rgb: the background as drawn, 0..255.
    """

    objects: tuple[int, ...]
    corners: tuple[tuple[int, int], ...]
    relation: str | None
    colour: str
    rgb: tuple[int, int, int]


def choose(options: Sequence[T], generator: torch.Generator) -> T:
    """Return one of `options` at random."""
    return options[int(torch.randint(len(options), (), generator=generator))]


def jitter_colour(colour: str, generator: torch.Generator) -> tuple[int, int, int]:
    """Return the RGB of a named colour, each channel shifted by at most 6."""
    jitter = torch.randint(-6, 7, (3,), generator=generator).tolist()
    red, green, blue = (
        min(255, max(0, c + j)) for c, j in zip(COLOURS[colour][1], jitter, strict=True)
    )
    return red, green, blue


def single_scene(index: int, colour: str, generator: torch.Generator) -> Scene:
    """Return a scene of object `index` alone, at a random corner."""
    corner = (choose(SINGLE_OFFSETS, generator), choose(SINGLE_OFFSETS, generator))
    return Scene((index,), (corner,), None, colour, jitter_colour(colour, generator))


def pair_scene(
    first: int, second: int, relation: str, colour: str, generator: torch.Generator
) -> Scene:
    """Return a scene in which `first` stands `relation` ("left", "above", ...) of `second`."""
    near, far = 0, SIZE - PAIR_SIDE
    across = [choose(PAIR_OFFSETS, generator) for _ in range(2)]
    along = (near, far) if relation in ("left", "above") else (far, near)
    if relation in ("left", "right"):
        corners = tuple((a, c) for a, c in zip(along, across, strict=True))
    else:
        corners = tuple((c, a) for a, c in zip(along, across, strict=True))
    return Scene((first, second), corners, relation, colour, jitter_colour(colour, generator))


def random_scene(count: int, generator: torch.Generator, pairs: float = 0.5) -> Scene:
    """Return a random scene over `count` objects; with probability `pairs` it holds two."""
    colour = choose(list(COLOURS), generator)
    if float(torch.rand((), generator=generator)) >= pairs:
        return single_scene(int(torch.randint(count, (), generator=generator)), colour, generator)
    first, second = torch.randperm(count, generator=generator)[:2].tolist()
    return pair_scene(first, second, choose(list(RELATIONS), generator), colour, generator)


class Composer:
    """Draws scenes from the sprites of a vocabulary."""

    def __init__(self, folder: Path, vocabulary: Vocabulary):
        emojis = [o.emoji for o in vocabulary.objects]
        self.sprites = {s: load_sprites(folder, emojis, s) for s in (SINGLE_SIDE, PAIR_SIDE)}

    def draw(self, scenes: list[Scene]) -> torch.Tensor:
        """Return the pictures, (B, 3, 128, 128) float32 in -1..1."""
        rgb = torch.tensor([s.rgb for s in scenes], dtype=torch.float32) / 255
        out = rgb[:, :, None, None].expand(-1, -1, SIZE, SIZE).clone()
        for i, scene in enumerate(scenes):
            side = object_side(scene)
            for index, (x, y) in zip(scene.objects, scene.corners, strict=True):
                sprite = self.sprites[side][index]
                window = out[i, :, y : y + side, x : x + side]
                window.mul_(1 - sprite[3:]).add_(sprite[:3])
        return out.mul_(2).sub_(1)


def object_side(scene: Scene) -> int:
    """Return the side in pixels of an object's square in `scene`."""
    return SINGLE_SIDE if len(scene.objects) == 1 else PAIR_SIDE


def coverage_maps(scene: Scene, side: int) -> torch.Tensor:
    """Return how much of each cell an object's square covers, (objects, side, side) in 0..1.

    side: cells per side that the picture is cut into.
    """
    size = object_side(scene)
    edges = torch.arange(side + 1) * (SIZE / side)

    def covered(low: int) -> torch.Tensor:
        ends = edges.clamp(low, low + size)
        return (ends[1:] - ends[:-1]) / (SIZE / side)

    return torch.stack([covered(y)[:, None] * covered(x)[None] for x, y in scene.corners])
