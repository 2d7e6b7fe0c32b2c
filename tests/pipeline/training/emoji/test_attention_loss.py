"""The attention loss: name masks, coverage maps, its value, and the measure of word maps."""

import pytest
import torch

from pipeline.training.emoji import evaluate, tokenizer
from pipeline.training.emoji.attention_loss import AttentionLoss
from pipeline.training.emoji.captions import caption_with_names
from pipeline.training.emoji.clip import tokenize
from pipeline.training.emoji.scenes import (
    PAIR_SIDE,
    SINGLE_SIDE,
    SIZE,
    coverage_maps,
    pair_scene,
    single_scene,
)
from pipeline.training.emoji.vocabulary import RELATIONS

pytestmark = pytest.mark.quick


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_coverage_maps_are_the_share_of_each_cell_under_a_sprite(side):
    for scene in (single_scene(3, "red", seeded(1)), pair_scene(1, 2, "above", "red", seeded(2))):
        size = SINGLE_SIDE if len(scene.objects) == 1 else PAIR_SIDE
        pixels = torch.zeros(len(scene.objects), SIZE, SIZE)
        for picture, (x, y) in zip(pixels, scene.corners, strict=True):
            picture[y : y + size, x : x + size] = 1
        expected = torch.nn.functional.adaptive_avg_pool2d(pixels, side)
        assert torch.allclose(coverage_maps(scene, side), expected, atol=1e-6)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_name_mask_marks_the_tokens_of_the_name(vocabulary, words, language):
    read = tokenizer.load(words)
    attention_loss = AttentionLoss(read)
    generator = seeded(4)
    for relation in RELATIONS:
        scene = pair_scene(5, 11, relation, "blue", generator)
        text, names = caption_with_names(scene, vocabulary, language, generator)
        assert all(name in text for name in names)
        ids = tokenize(read, [text], full=True)
        keys = attention_loss.name_mask(ids, [names])[0]
        for name, row in zip(names, keys, strict=True):
            found = read.decode(ids[0][row.bool()]).replace(" ", "")
            assert found == name.replace(" ", "")


def test_loss_is_the_squared_share_of_the_map_beside_the_object(vocabulary, words):
    read = tokenizer.load(words)
    attention_loss = AttentionLoss(read)
    scene = pair_scene(5, 11, "left", "blue", seeded(1))
    text, names = caption_with_names(scene, vocabulary, "en")
    ids = tokenize(read, [text, ""], full=True)
    keys = attention_loss.name_mask(ids, [names, ()])
    assert keys[1].sum() == 0
    cells = coverage_maps(scene, 8).flatten(1)  # (2, 64)

    def loss(first, second):
        """The map of each object's name lies on these cells alone."""
        maps = torch.zeros(2, 64, ids.shape[1])
        for row, where in zip(keys[0], (first, second), strict=True):
            maps[0, :, row.bool()] = (where / row.sum())[:, None]
        attention_loss(maps)
        got = attention_loss.compute(ids, [names, ()], [scene, scene])
        assert attention_loss.maps == []
        return got.item()

    inner = (cells == 1).float()  # cells that an object covers completely
    assert loss(*inner) < 1e-6
    assert loss(*inner.flip(0)) > 0.99
    even = torch.ones(64)
    shares = [(even * cell).sum() / even.sum() for cell in cells]
    expected = sum((1 - s) ** 2 for s in shares) / 2
    assert abs(loss(even, even) - expected) < 1e-5


def test_find_name_finds_names_however_words_are_split():
    words = ("a", "red", "apple", "left", "of", "an", "apple", "红", "苹", "果")
    assert evaluate.find_name(words, "red apple") == slice(1, 3)
    assert evaluate.find_name(words, "apple") == slice(2, 3)
    assert evaluate.find_name(words, "红苹果") == slice(7, 10)
    assert evaluate.find_name(words, "pear") is None


@pytest.mark.parametrize("relation", list(RELATIONS))
def test_only_a_map_on_the_object_is_in_the_right_half(relation):
    scene = pair_scene(1, 2, relation, "red", seeded(3))
    for number, cell in enumerate(coverage_maps(scene, 8)):
        assert evaluate.is_in_right_half(cell + 0.1, relation, number == 0)
        assert not evaluate.is_in_right_half(cell + 0.1, relation, number == 1)
