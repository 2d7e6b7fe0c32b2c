"""Captions: they name the objects, the colour and the relation of their scene."""

import pytest
import torch

from pipeline.prompt.text import with_article
from pipeline.training.emoji import scenes
from pipeline.training.emoji.captions import caption
from pipeline.training.emoji.vocabulary import RELATIONS

pytestmark = pytest.mark.quick


def seeded(n=0):
    return torch.Generator().manual_seed(n)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_name_what_is_there(vocabulary, language):
    generator, phrasings = seeded(), set()
    for _ in range(300):
        scene = scenes.random_scene(len(vocabulary), generator)
        text = caption(scene, vocabulary, language, generator)
        names = []
        for index in scene.objects:
            thing = vocabulary.objects[index]
            names.append(
                (thing.en, *thing.keywords_en)
                if language == "en"
                else (thing.zh, *thing.keywords_zh)
            )
        assert all(any(n in text for n in options) for options in names)
        assert "{" not in text
        phrasings.add(text.replace(names[0][0], "X"))
    assert len(phrasings) > 100


def test_the_first_phrasing_states_relation_and_colour(vocabulary):
    scene = scenes.pair_scene(0, 1, "left", "blue", seeded())
    a, b = (with_article(vocabulary.objects[i].en) for i in (0, 1))
    text = caption(scene, vocabulary, "en")
    assert text == f"{a} to the left of {b} on a blue background"
    assert "蓝色" in caption(scene, vocabulary, "zh")


@pytest.mark.parametrize("seed", range(20))
def test_a_caption_from_the_other_object_has_the_opposite_relation(vocabulary, seed):
    scene = scenes.pair_scene(0, 1, "above", "red", seeded())
    text = caption(scene, vocabulary, "en", seeded(seed))
    first, second = (text.index(vocabulary.objects[i].en) for i in (0, 1))
    over = any(phrase in text for phrase in RELATIONS["above"][0])
    assert over == (first < second)


def test_articles():
    for name, said in {
        "red apple": "a red apple",
        "ice skate": "an ice skate",
        "grapes": "grapes",
        "octopus": "an octopus",
        "unicorn": "a unicorn",
        "dress": "a dress",
    }.items():
        assert with_article(name) == said
