"""The choice of models, LoRAs and embeddings."""

from pathlib import Path

import pytest

from demo.workspace import menus
from pipeline.model_files import library
from pipeline.model_files.library import Entry


@pytest.mark.parametrize(
    ("kind", "prompt", "name", "after"),
    [
        ("lora", "", "soft", "<lora:soft:1>"),
        ("lora", "a cat ", "soft", "a cat <lora:soft:1>"),
        ("lora", "<lora:soft:0.3> cat", "soft", "<lora:soft:0.3> cat"),
        ("lora", "<lora:softer:1>", "soft", "<lora:softer:1> <lora:soft:1>"),
        ("lora", "a", "x.+(1)", "a <lora:x.+(1):1>"),
        ("embedding", "a cat", "zonk", "a cat zonk"),
        ("embedding", "a Zonk, cat", "zonk", "a Zonk, cat"),
        ("embedding", "zonked", "zonk", "zonked zonk"),
        ("lora", "a cat", None, "a cat"),
    ],
)
def test_what_is_chosen_goes_into_the_prompt_once(kind, prompt, name, after):
    assert menus.add_to_prompt(kind, prompt, name) == (after, None)


def entry(name, kind="lora", family="", reason=None):
    return Entry(name, Path(name), kind, family, "what it is", reason)


def test_models_are_labelled_with_their_family_and_marked_if_unusable():
    rows = [entry("a", family="SD XL"), entry("b", reason="It is damaged.")]
    assert menus.choice_labels(rows) == [("a · SD XL", "a"), ("b ✕", "b")]


def test_additions_of_another_family_are_marked(fake_models, fake_model_cache, monkeypatch):
    model_cache = fake_model_cache(fake_models())
    monkeypatch.setattr(model_cache, "choices", lambda: [entry("fake", "checkpoint", "SD 1.x")])
    found = [entry("own", family="SD 1.x"), entry("big", family="SD XL"), entry("any")]
    monkeypatch.setattr(library, "scan", lambda folder=None: [*found, entry("fake", "checkpoint")])
    loras, embeddings = menus.addition_updates(model_cache, "fake", "en")
    assert loras["choices"] == [("own", "own"), ("big · for SD XL ✕", "big"), ("any", "any")]
    assert loras["visible"] and not embeddings["visible"]


def test_about_says_what_it_is_or_why_not(fake_models, fake_model_cache, monkeypatch):
    model_cache = fake_model_cache(fake_models())
    rows = [entry("good", "checkpoint"), entry("bad", "checkpoint", reason="It is damaged.")]
    monkeypatch.setattr(model_cache, "choices", lambda: rows)
    told = [menus.describe_checkpoint(model_cache, name) for name in ("good", "bad", "none")]
    assert told == ["what it is", "It is damaged.", ""]
