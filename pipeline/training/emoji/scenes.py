"""Random scenes of one or two emoji on a plain background, and their pictures as tensors.

Two objects stand in the left and right or in the upper and lower half of the picture. The top left
corners of objects are multiples of 8 pixels, the size of a latent, so that moving an object moves
its latents unchanged. Nothing is mirrored: letters, clocks and flags stay readable.
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
SINGLE_SIDE, PAIR_SIDE = 112, 64  # side of an object in pixels, alone and as one of two
SINGLE_OFFSETS = (0, 8, 16)  # possible x and y of a single object's top left corner
# Possible y of the corners of two objects side by side, or x of two objects one above the other; in
# the other direction an object fills its half of the picture.
PAIR_OFFSETS = (24, 32, 40)


@dataclass(frozen=True)
class Scene:
    """What a training picture shows: one or two objects on a plain background.

    objects: indices into the vocabulary; corners: top left pixel (x, y) of each object; relation: a
    key of RELATIONS, such as "left" if the first object is left of the second, None for one object;
    colour: name of the background colour, a key of COLOURS; rgb: the background colour as drawn,
    0..255, slightly varied.
    """

    objects: tuple[int, ...]
    corners: tuple[tuple[int, int], ...]
    relation: str | None
    colour: str
    rgb: tuple[int, int, int]


def choose(options: Sequence[T], generator: torch.Generator) -> T:
    """Return a random element of `options`."""
    return options[int(torch.randint(len(options), (), generator=generator))]


def jitter_colour(colour: str, generator: torch.Generator) -> tuple[int, int, int]:
    """Return the RGB (0..255) of a colour name, each channel changed at random by up to 6.

    colour: a key of COLOURS.
    """
    jitter = torch.randint(-6, 7, (3,), generator=generator).tolist()
    red, green, blue = (
        min(255, max(0, c + j)) for c, j in zip(COLOURS[colour][1], jitter, strict=True)
    )
    return red, green, blue


def single_scene(index: int, colour: str, generator: torch.Generator) -> Scene:
    """Return a scene with object `index` of the vocabulary alone, at a random position.

    colour: name of the background colour, a key of COLOURS.
    """
    corner = (choose(SINGLE_OFFSETS, generator), choose(SINGLE_OFFSETS, generator))
    return Scene((index,), (corner,), None, colour, jitter_colour(colour, generator))


def pair_scene(
    first: int, second: int, relation: str, colour: str, generator: torch.Generator
) -> Scene:
    """Return a scene of two objects in which `first` is left of, right of, above or below `second`.

    first, second: indices into the vocabulary; relation: a key of RELATIONS ("left", "above", ...);
    colour: name of the background colour, a key of COLOURS.
    """
    near, far = 0, SIZE - PAIR_SIDE
    across = [choose(PAIR_OFFSETS, generator) for _ in range(2)]
    along = (near, far) if relation in ("left", "above") else (far, near)
    if relation in ("left", "right"):
        corners = tuple((a, c) for a, c in zip(along, across, strict=True))
    else:
        corners = tuple((c, a) for a, c in zip(along, across, strict=True))
    return Scene((first, second), corners, relation, colour, jitter_colour(colour, generator))


def random_scene(count: int, generator: torch.Generator, pairs: float = 0.5) -> Scene:
    """Return a random scene of one object or, with probability `pairs` (0 to 1), of two.

    count: number of objects in the vocabulary.
    """
    colour = choose(list(COLOURS), generator)
    if float(torch.rand((), generator=generator)) >= pairs:
        return single_scene(int(torch.randint(count, (), generator=generator)), colour, generator)
    first, second = torch.randperm(count, generator=generator)[:2].tolist()
    return pair_scene(first, second, choose(list(RELATIONS), generator), colour, generator)


class Composer:
    """Draws pictures of scenes with the emoji of a vocabulary.

    folder: where the training data is (packages.py).
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary):
        emojis = [o.emoji for o in vocabulary.objects]
        self.sprites = {s: load_sprites(folder, emojis, s) for s in (SINGLE_SIDE, PAIR_SIDE)}

    def draw(self, scenes: list[Scene]) -> torch.Tensor:
        """Return the pictures of `scenes`, (B, 3, 128, 128) float32 in [-1, 1]."""
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
    """Return the side in pixels of the square that each object of `scene` fills."""
    return SINGLE_SIDE if len(scene.objects) == 1 else PAIR_SIDE


def coverage_maps(scene: Scene, side: int) -> torch.Tensor:
    """Return where the objects of `scene` are: a map for each, (objects, side, side) in [0, 1].

    The picture is divided into side x side cells; a value is the share of the cell that the square
    of the object covers.
    """
    size = object_side(scene)
    edges = torch.arange(side + 1) * (SIZE / side)

    def covered(low: int) -> torch.Tensor:
        ends = edges.clamp(low, low + size)
        return (ends[1:] - ends[:-1]) / (SIZE / side)

    return torch.stack([covered(y)[:, None] * covered(x)[None] for x, y in scene.corners])
