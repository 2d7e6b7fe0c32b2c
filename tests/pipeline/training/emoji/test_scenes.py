"""Scenes: where objects stand, what is drawn, and that seeds repeat."""

import pytest
import torch

from pipeline.training.emoji import scenes
from pipeline.training.emoji.scenes import PAIR_SIDE, SIZE
from pipeline.training.emoji.vocabulary import COLOURS, RELATIONS

pytestmark = pytest.mark.quick


def seeded(n=0):
    return torch.Generator().manual_seed(n)


@pytest.mark.parametrize("relation", list(RELATIONS))
def test_each_object_of_a_pair_lies_wholly_in_its_half(composer, relation):
    """Drawn on black: what the first object adds is seen in its half only."""
    for seed in range(5):
        scene = scenes.pair_scene(3, 8, relation, "black", seeded(seed))
        axis = 0 if relation in ("left", "right") else 1
        first, second = (place[axis] for place in scene.corners)
        low, high = (first, second) if relation in ("left", "above") else (second, first)
        assert low + PAIR_SIDE <= SIZE // 2 <= high
        assert all(p >= 0 and p + PAIR_SIDE <= SIZE for place in scene.corners for p in place)
        ground = torch.tensor(scene.rgb).view(3, 1, 1) / 127.5 - 1
        seen = ((composer.draw([scene])[0] - ground).abs() > 0.02).any(0)
        assert seen[:, :64].any() and seen[:, 64:].any() if axis == 0 else seen[:64].any()


def test_pictures_are_what_a_plain_composition_gives(composer):
    scene = scenes.single_scene(5, "blue", seeded())
    (x, y), side = scene.corners[0], scenes.SINGLE_SIDE
    expected = torch.tensor(scene.rgb).view(3, 1, 1).expand(3, SIZE, SIZE).clone() / 255
    sprite = composer.sprites[side][5]
    window = expected[:, y : y + side, x : x + side]
    expected[:, y : y + side, x : x + side] = window * (1 - sprite[3]) + sprite[:3]
    drawn = composer.draw([scene])[0]
    assert torch.allclose(drawn, expected * 2 - 1, atol=1e-6) and drawn.abs().max() <= 1


def test_the_same_seed_gives_the_same_scenes():
    a, b = ([scenes.random_scene(252, g) for _ in range(50)] for g in (seeded(1), seeded(1)))
    assert a == b and {s.colour for s in a} <= set(COLOURS)
