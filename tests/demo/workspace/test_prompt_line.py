"""What stands under a prompt."""

import re
from pathlib import Path

import pytest
import torch

import pipeline
from demo.workspace.prompt_line import render_line
from pipeline.prompt.embeddings import Embedding


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(Path(pipeline.__file__).with_name("clip"))


def marks(page):
    """{text: strength} of the stretches that are louder or softer."""
    found = re.findall(r'<mark class="gb-(up|down)" style="--by:([\d.]+)">(.*?)<sub>', page)
    return {text: (way, float(by)) for way, by, text in found}


def test_plain_text_is_counted_and_nothing_else(tokenizer):
    page = render_line("a red apple", tokenizer, "en")
    assert "3 / 75 tokens" in page
    assert '<div class="gb-weights"></div>' in page
    assert "<li>" not in page


def test_a_second_chunk_has_room_for_more(tokenizer):
    assert "76 / 150 个词元" in render_line("cat " * 76, tokenizer, "zh")


def test_weights_are_marked_by_how_strong_they_are(tokenizer):
    page = render_line("(a:1.2) (b:1.9) [c] (d:5) e", tokenizer, "en")
    found = marks(page)
    assert {text: way for text, (way, _) in found.items()} == {
        "a": "up", "b": "up", "c": "down", "d": "up",
    }  # fmt: skip
    assert found["a"][1] < found["b"][1] < found["d"][1] == 1.0
    assert "<sub>1.2</sub>" in page and "<sub>0.909</sub>" in page


def test_every_kind_of_syntax_has_its_look(tokenizer):
    page = render_line("a BREAK [b:c:0.5] <lora:x:1>", tokenizer, "en")
    for look, text in (("break", "BREAK"), ("lora", "&lt;lora:x:1&gt;"), ("schedule", "[")):
        assert f'<span class="gb-{look}">{text}</span>' in page


def test_hints_are_shown_and_what_was_typed_is_escaped(tokenizer):
    page = render_line("(<img src=x> <script>&", tokenizer, "en")
    assert "never closed" in page
    assert "<img" not in page and "<script" not in page
    assert "&lt;script&gt;&amp;" in page


def test_an_embedding_counts_its_vectors(tokenizer):
    known = {"zonk": Embedding("zonk", (torch.zeros(5, 768),))}
    assert "6 / 75" in render_line("a zonk", tokenizer, "en", known)


def test_a_prompt_beyond_the_limit_is_not_read(tokenizer):
    assert render_line("x" * 10_001, tokenizer, "en") == ""


def test_a_schedule_is_read_with_the_steps_of_the_form(tokenizer):
    assert "<li>" not in render_line("[a:b:5]", tokenizer, "en", steps=20)
    assert "<li>" in render_line("[a:b:5]", tokenizer, "en", steps=3)
