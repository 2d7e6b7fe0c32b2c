"""Scenes and captions: what is asked for is what is shown."""

import json
from collections import Counter

import pytest
import torch

from pipeline.training.emoji import scenes
from pipeline.training.emoji.scenes import COLOURS, OBJECTS, PAIR, RELATIONS, SIZE


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def test_the_vocabulary_is_even_and_has_no_doubles(vocabulary):
    groups = Counter(t.group for t in vocabulary.things)
    assert len(vocabulary) >= 250 and len(set(groups.values())) == 1
    assert len({t.emoji for t in vocabulary.things}) == len(vocabulary)
    assert set(groups) == set(OBJECTS)


def test_names_are_short_and_keywords_mean_one_object(vocabulary):
    by_emoji = {t.emoji: t for t in vocabulary.things}
    assert by_emoji["🐱"].en == "cat" and by_emoji["🐱"].keywords_en == ("kitten",)
    assert by_emoji["🐶"].keywords_en == ()  # "puppy" is a keyword of many here


def test_vocabulary_file(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.json")
    rows = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    assert len(rows) == len(vocabulary) and {"emoji", "en", "zh"} <= set(rows[0])


@pytest.mark.parametrize("relation", list(RELATIONS))
def test_each_object_of_a_pair_lies_wholly_in_its_half(composer, relation):
    """Drawn on black: what the first object adds is seen in its half only."""
    for seed in range(5):
        scene = scenes.pair_scene(3, 8, relation, "black", seeded(seed))
        axis = 0 if relation in ("left", "right") else 1
        first, second = (place[axis] for place in scene.places)
        low, high = (first, second) if relation in ("left", "above") else (second, first)
        assert low + PAIR <= SIZE // 2 <= high
        assert all(p >= 0 and p + PAIR <= SIZE for place in scene.places for p in place)
        ground = torch.tensor(scene.shade).view(3, 1, 1) / 127.5 - 1
        seen = ((composer.draw([scene])[0] - ground).abs() > 0.02).any(0)
        assert seen[:, :64].any() and seen[:, 64:].any() if axis == 0 else seen[:64].any()


def test_pictures_are_what_a_plain_composition_gives(composer):
    scene = scenes.single_scene(5, "blue", seeded())
    (x, y), side = scene.places[0], scenes.SINGLE
    expected = torch.tensor(scene.shade).view(3, 1, 1).expand(3, SIZE, SIZE).clone() / 255
    sprite = composer.sprites[side][5]
    window = expected[:, y : y + side, x : x + side]
    expected[:, y : y + side, x : x + side] = window * (1 - sprite[3]) + sprite[:3]
    drawn = composer.draw([scene])[0]
    assert torch.allclose(drawn, expected * 2 - 1, atol=1e-6) and drawn.abs().max() <= 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_name_what_is_there(vocabulary, language):
    generator, phrasings = seeded(), set()
    for _ in range(300):
        scene = scenes.random_scene(len(vocabulary), generator)
        text = scenes.caption(scene, vocabulary, language, generator)
        names = []
        for index in scene.things:
            thing = vocabulary.things[index]
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
    a, b = (scenes.with_article(vocabulary.things[i].en) for i in (0, 1))
    text = scenes.caption(scene, vocabulary, "en")
    assert text == f"{a} to the left of {b} on a blue background"
    assert "蓝色" in scenes.caption(scene, vocabulary, "zh")


@pytest.mark.parametrize("seed", range(20))
def test_told_from_the_other_object_the_relation_turns(vocabulary, seed):
    scene = scenes.pair_scene(0, 1, "above", "red", seeded())
    text = scenes.caption(scene, vocabulary, "en", seeded(seed))
    first, second = (text.index(vocabulary.things[i].en) for i in (0, 1))
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
        assert scenes.with_article(name) == said


def test_the_same_seed_gives_the_same_scenes():
    a, b = ([scenes.random_scene(252, g) for _ in range(50)] for g in (seeded(1), seeded(1)))
    assert a == b and {s.colour for s in a} <= set(COLOURS)


def test_missing_data_without_npm_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes.shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError, match="--data"):
        scenes.fetch(tmp_path)
