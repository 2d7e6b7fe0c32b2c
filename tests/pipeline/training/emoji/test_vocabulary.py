"""The vocabulary: its objects, names and keywords, and vocabulary.json."""

import json
from collections import Counter

import pytest

from pipeline.training.emoji.vocabulary import OBJECTS

pytestmark = pytest.mark.quick


def test_the_vocabulary_is_even_and_has_no_doubles(vocabulary):
    groups = Counter(t.group for t in vocabulary.objects)
    assert len(vocabulary) >= 250 and len(set(groups.values())) == 1
    assert len({t.emoji for t in vocabulary.objects}) == len(vocabulary)
    assert set(groups) == set(OBJECTS)


def test_names_are_short_and_keywords_mean_one_object(vocabulary):
    by_emoji = {t.emoji: t for t in vocabulary.objects}
    assert by_emoji["🐱"].en == "cat" and by_emoji["🐱"].keywords_en == ("kitten",)
    assert by_emoji["🐶"].keywords_en == ()  # "puppy" is a keyword of many here


def test_vocabulary_file(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.json")
    rows = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    assert len(rows) == len(vocabulary) and {"emoji", "en", "zh"} <= set(rows[0])
