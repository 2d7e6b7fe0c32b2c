"""The page's words: every key in both languages, every key that the code uses in the table."""

import re
import string
from pathlib import Path
from types import SimpleNamespace

import pytest

import demo
import demo.tabs
from demo import texts

ROWS = texts.TEXTS | texts.notes()


@pytest.mark.parametrize("key", ROWS)
def test_both_languages_say_something(key):
    assert len(ROWS[key]) == len(texts.LANGUAGES)
    assert all(text.strip() for text in ROWS[key])


@pytest.mark.parametrize("key", texts.TEXTS)
def test_both_languages_take_the_same_numbers(key):
    names = [
        {name for _, name, _, _ in string.Formatter().parse(text) if name}
        for text in texts.TEXTS[key]
    ]
    assert names[0] == names[1]


def test_chinese_is_chinese():
    untranslated = [k for k, (_, zh) in texts.TEXTS.items() if not re.search("[\u4e00-\u9fff]", zh)]
    assert untranslated == []


def test_keys_used_in_the_code_exist():
    used = set()
    for path in Path(demo.__file__).parent.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"""\b(?:i18n|say)\(\s*["'](\w+)["']""", code))
    assert used >= {"stop", "model", "send"}
    assert used <= set(texts.TEXTS)


def test_translations_reach_gradio():
    tables = texts.translations().translations_dict
    assert set(tables) == {"en", "zh"}
    assert tables["zh"]["generate"] == "生成"
    assert set(tables["en"]) == set(tables["zh"]) == set(ROWS)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("de", "en"),
        (None, "en"),
    ],
)
def test_language_of_a_request(header, language):
    headers = {} if header is None else {"accept-language": header}
    assert texts.request_language(SimpleNamespace(headers=headers)) == language


def test_colours_are_those_of_the_training():
    data = pytest.importorskip("pipeline.training.emoji.vocabulary")
    trained = {en: (zh, "#" + bytes(rgb).hex()) for en, (zh, rgb) in data.COLOURS.items()}
    assert {k: (zh, look) for k, (_, zh, look) in texts.COLOURS.items()} == trained
