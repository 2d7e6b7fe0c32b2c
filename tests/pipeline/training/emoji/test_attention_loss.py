"""Names that look where their things are: what the loss counts, and that it is what is measured."""

import pytest
import torch

from pipeline.training.emoji import evaluate, tokenizer
from pipeline.training.emoji.clip import tokens
from pipeline.training.emoji.placement import Placement
from pipeline.training.emoji.scenes import (
    PAIR,
    RELATIONS,
    SINGLE,
    SIZE,
    pair_scene,
    single_scene,
    squares,
    told,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_squares_cover_what_the_sprites_cover(side):
    for scene in (single_scene(3, "red", seeded(1)), pair_scene(1, 2, "above", "red", seeded(2))):
        size = SINGLE if len(scene.things) == 1 else PAIR
        pixels = torch.zeros(len(scene.things), SIZE, SIZE)
        for picture, (x, y) in zip(pixels, scene.places, strict=True):
            picture[y : y + size, x : x + size] = 1
        expected = torch.nn.functional.adaptive_avg_pool2d(pixels, side)
        assert torch.allclose(squares(scene, side), expected, atol=1e-6)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_keys_are_those_of_the_name(vocabulary, words, language):
    read = tokenizer.load(words)
    looks = Placement(read)
    generator = seeded(4)
    for relation in RELATIONS:
        scene = pair_scene(5, 11, relation, "blue", generator)
        text, names = told(scene, vocabulary, language, generator)
        assert all(name in text for name in names)
        ids = tokens(read, [text], full=True)
        keys = looks.keys(ids, [names])[0]
        for name, row in zip(names, keys, strict=True):
            found = read.decode(ids[0][row.bool()]).replace(" ", "")
            assert found == name.replace(" ", "")


def test_the_loss_is_what_lies_beside_the_things(vocabulary, words):
    read = tokenizer.load(words)
    looks = Placement(read)
    scene = pair_scene(5, 11, "left", "blue", seeded(1))
    text, names = told(scene, vocabulary, "en")
    ids = tokens(read, [text, ""], full=True)
    keys = looks.keys(ids, [names, ()])
    assert keys[1].sum() == 0
    cells = squares(scene, 8).flatten(1)  # (2, 64)

    def loss(first, second):
        """Each object's name looks at these cells alone."""
        maps = torch.zeros(2, 64, ids.shape[1])
        for row, where in zip(keys[0], (first, second), strict=True):
            maps[0, :, row.bool()] = (where / row.sum())[:, None]
        looks(maps)
        got = looks.loss(ids, [names, ()], [scene, scene])
        assert looks.maps == []
        return got.item()

    inner = (cells == 1).float()  # cells that a thing covers wholly
    assert loss(*inner) < 1e-6
    assert loss(*inner.flip(0)) > 0.99
    even = torch.ones(64)
    shares = [(even * cell).sum() / even.sum() for cell in cells]
    expected = sum((1 - s) ** 2 for s in shares) / 2
    assert abs(loss(even, even) - expected) < 1e-5


def test_names_are_found_however_words_are_cut():
    words = ("a", "red", "apple", "left", "of", "an", "apple", "红", "苹", "果")
    assert evaluate.name_at(words, "red apple") == slice(1, 3)
    assert evaluate.name_at(words, "apple") == slice(2, 3)
    assert evaluate.name_at(words, "红苹果") == slice(7, 10)
    assert evaluate.name_at(words, "pear") is None


@pytest.mark.parametrize("relation", list(RELATIONS))
def test_a_map_on_the_thing_counts_and_one_beside_it_does_not(relation):
    scene = pair_scene(1, 2, relation, "red", seeded(3))
    for number, cell in enumerate(squares(scene, 8)):
        assert evaluate.in_its_half(cell + 0.1, relation, number == 0)
        assert not evaluate.in_its_half(cell + 0.1, relation, number == 1)
