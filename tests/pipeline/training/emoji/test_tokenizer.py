"""The BPE tokenizer: every letter can be encoded, Han characters are words."""

import pytest

from pipeline.training.emoji import tokenizer

pytestmark = pytest.mark.quick


def test_tokenizer_knows_every_letter_and_keeps_the_prompt(words):
    encoder = tokenizer.load(words)
    for text in ("a thing aa on a blue background", "蓝 色 背 景", "ÅÉ ñ 🍎 ж", "1 + 2 = 3!"):
        ids = encoder(text).input_ids
        assert ids[0] == encoder.bos_token_id and ids[-1] == encoder.eos_token_id
        inner = ids[1:-1]
        assert encoder.eos_token_id not in inner and encoder.bos_token_id not in inner
        assert encoder.decode(inner).replace(" ", "") == text.lower().replace(" ", "")


def test_han_characters_are_words_of_their_own():
    from pipeline.prompt.text import space_han

    assert space_han("蓝色背景上的red苹果") == "蓝 色 背 景 上 的 red 苹 果"
    assert space_han("a red apple") == "a red apple"
