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
    """What a training picture shows: one or two emoji on a plain background.

    objects: indices of the emoji in the vocabulary, the model's list of emoji; corners: top left
    pixel (x, y) of each; relation: where the first stands as seen from the second, "left", "right",
    "above" or "below", None for one emoji; colour: name of the background colour, such as "red";
    rgb: the background colour as drawn, 0..255, slightly varied.
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

    Backgrounds of training pictures vary in this way. colour: a key of COLOURS, such as "red".
    """
    jitter = torch.randint(-6, 7, (3,), generator=generator).tolist()
    red, green, blue = (
        min(255, max(0, c + j)) for c, j in zip(COLOURS[colour][1], jitter, strict=True)
    )
    return red, green, blue


def single_scene(index: int, colour: str, generator: torch.Generator) -> Scene:
    """Return what a picture of one emoji shows, with a random position, to be drawn by a Composer.

    index: of the emoji in the vocabulary, the model's list; colour: name of the background colour,
    such as "red"; it is slightly varied at random.
    """
    corner = (choose(SINGLE_OFFSETS, generator), choose(SINGLE_OFFSETS, generator))
    return Scene((index,), (corner,), None, colour, jitter_colour(colour, generator))


def pair_scene(
    first: int, second: int, relation: str, colour: str, generator: torch.Generator
) -> Scene:
    """Return what a picture of two emoji shows, to be drawn by a Composer; positions vary slightly.

    first, second: indices of the emoji in the vocabulary, the model's list; relation: where the
    first stands as seen from the second, "left", "right", "above" or "below"; colour: name of the
    background colour, such as "red"; it is slightly varied at random.
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
    """Choose at random what a training picture shows: emoji, their positions and the background.

    It has one emoji or, with probability `pairs` (0 to 1), two. count: number of emoji to choose
    from, those of the vocabulary.
    """
    colour = choose(list(COLOURS), generator)
    if float(torch.rand((), generator=generator)) >= pairs:
        return single_scene(int(torch.randint(count, (), generator=generator)), colour, generator)
    first, second = torch.randperm(count, generator=generator)[:2].tolist()
    return pair_scene(first, second, choose(list(RELATIONS), generator), colour, generator)


class Composer:
    """Draws training pictures: the emoji of a vocabulary, pasted on plain backgrounds.

    folder: of the npm packages with the emoji's pictures.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary):
        emojis = [o.emoji for o in vocabulary.objects]
        self.sprites = {s: load_sprites(folder, emojis, s) for s in (SINGLE_SIDE, PAIR_SIDE)}

    def draw(self, scenes: list[Scene]) -> torch.Tensor:
        """Draw the pictures that `scenes` describe: (B, 3, 128, 128) float32 in [-1, 1]."""
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
    """Return the side in pixels of the square that each emoji of a training picture fills.

    It depends on whether `scene`, which describes the picture, has one emoji or two.
    """
    return SINGLE_SIDE if len(scene.objects) == 1 else PAIR_SIDE


def coverage_maps(scene: Scene, side: int) -> torch.Tensor:
    """Return where the emoji of a picture are: one map for each, (emoji, side, side) in [0, 1].

    scene: what the picture shows. The picture is divided into side x side cells; a value is the
    share of the cell that the emoji's square covers. A training loss compares attention maps with
    it.
    """
    size = object_side(scene)
    edges = torch.arange(side + 1) * (SIZE / side)

    def covered(low: int) -> torch.Tensor:
        ends = edges.clamp(low, low + size)
        return (ends[1:] - ends[:-1]) / (SIZE / side)

    return torch.stack([covered(y)[:, None] * covered(x)[None] for x, y in scene.corners])
