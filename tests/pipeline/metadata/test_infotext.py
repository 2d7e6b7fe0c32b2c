"""The A1111 parameters text, there and back."""

import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.metadata import containers, infotext

FIELDS = {"Steps": 20, "Sampler": "Euler a", "CFG scale": 7.0, "Seed": 42, "Size": "512x512"}
# How A1111 finds the pairs of the last line.
A1111 = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def test_layout():
    text = infotext.build("a cat", "blurry", FIELDS)
    assert text == (
        "a cat\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512"
    )


def test_empty_negative_and_what_is_none_are_left_out():
    text = infotext.build("a cat", "", FIELDS | {"Clip skip": None})
    assert "Negative" not in text and "Clip" not in text


def test_reads_what_a1111_writes():
    text = (
        "masterpiece, (a cat:1.2)\nsecond line\nNegative prompt: bad, worse\nand more\n"
        'Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Lora hashes: "a: 1, b: 2", Model: x'
    )
    found = infotext.parse(text)
    assert found["Prompt"] == "masterpiece, (a cat:1.2)\nsecond line"
    assert found["Negative prompt"] == "bad, worse\nand more"
    assert found["Sampler"] == "DPM++ 2M Karras" and found["Lora hashes"] == "a: 1, b: 2"


PIECES = [
    *("\n", "\r\n", " ", '"', "\\", ",", ":", "Negative prompt: ", "Negative prompt:"),
    *("Steps: 1, Sampler: x, CFG scale: 7", "Steps: ", "Template: ", "Exact prompt: ", "\ufeff"),
    *("Seed: 3, ", "🍎", "蓝色", "\x1b[0m", "\x85", "\u2028", "(a:1.2)", "<lora:a:1>", "{", "[1"),
]
letters = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
hostile = st.lists(st.sampled_from(PIECES) | letters, max_size=8).map("".join)


@given(prompt=hostile, negative=hostile, model=hostile, cfg=st.floats(0, 30))
@example("a\nSteps: 1, Sampler: x, CFG scale: 7", "", "m", 7.0)
@example("Negative prompt: a", "", "m", 7.0)
@example("", "a\nNegative prompt: b", "../../x", 1 / 3)
@example("\n", "\n\n", "\n", 0.0)
@example("", "", " m\u3000", 0.0)
def test_round_trip(prompt, negative, model, cfg):
    text = infotext.build(prompt, negative, FIELDS | {"CFG scale": cfg, "Model": model, "Z": "1"})
    found = infotext.parse(text)
    assert (found["Prompt"], found["Negative prompt"]) == (prompt, negative)
    assert found["Model"] == model and float(found["CFG scale"]) == cfg and found["Seed"] == "42"
    assert list(found)[:3] == ["Prompt", "Negative prompt", "Steps"]
    assert infotext.clean_text(text) == text, "a reader takes control characters out"


@given(prompt=hostile, model=hostile)
def test_a1111_reads_our_settings_as_we_do(prompt, model):
    text = infotext.build(prompt, "", FIELDS | {"Model": model, "Version": "x"})
    pairs = dict(A1111.findall(text.split("\n")[-1]))
    assert {k: json.loads(v) if v.startswith('"') else v for k, v in pairs.items()} == {
        **{k: v for k, v in infotext.parse(text).items() if "rompt" not in k},
        **{k: json.loads(v) for k, v in pairs.items() if k.startswith("Exact")},
    }


@pytest.mark.parametrize(
    "prompt", ["a cat", "", "a\n\nb, (c:1.2), {d|e}\n", " 蓝色 🍎: \"x\", 'y' "]
)
def test_usual_prompts_stand_there_once(prompt):
    assert "Exact" not in infotext.build(prompt, "bad, (worse:2)", FIELDS)


def test_exact_prompts_are_added_only_where_the_plain_text_would_lie():
    text = infotext.build("a\nNegative prompt: b", "", FIELDS)
    assert text.endswith(r', Exact prompt: "a\nNegative prompt: b", Exact negative prompt: ""')
    assert "Exact prompt" not in infotext.parse(text)


BEHIND = "a cat\nSteps: 20, Sampler: Euler a, Seed: 1\n"
TEXTS = {
    "no settings": ("a cat: b, c: d, e: f", {"Prompt": "a cat: b, c: d, e: f"}),
    "weights are no settings": (
        "a\n(b:1.2), (c:1.1), (d:2)",
        {"Prompt": "a\n(b:1.2), (c:1.1), (d:2)"},
    ),
    "two pairs are no settings": ("Steps: 1, Seed: 2", {"Prompt": "Steps: 1, Seed: 2"}),
    "no prompt": ("Steps: 1, Seed: 2, Size: 3", {"Prompt": "", "Steps": "1", "Size": "3"}),
    "no blank after the colon": (
        "a\nNegative prompt:b\nSteps:1,Sampler:Euler,Seed:2",
        {"Prompt": "a", "Negative prompt": "b", "Steps": "1", "Sampler": "Euler", "Seed": "2"},
    ),
    "settings in the prompt": (
        "Steps: 1, Sampler: x, Seed: 2\nSteps: 3, Sampler: y, Seed: 4",
        {"Prompt": "Steps: 1, Sampler: x, Seed: 2", "Seed": "4"},
    ),
    "settings before other lines are a prompt": (BEHIND + "b", {"Prompt": BEHIND + "b"}),
    "templates": (
        BEHIND + "Template: a {cat|dog}\nx: 1, y: 2\nNegative Template: bad",
        {
            "Prompt": "a cat",
            "Seed": "1",
            "Template": "a {cat|dog}\nx: 1, y: 2",
            "Negative Template": "bad",
        },
    ),
    "JSON without quotes": (
        'a\nSteps: 1, Civitai resources: [{"type":"lora","weight":0.7}, 1], Seed: 2',
        {"Civitai resources": '[{"type":"lora","weight":0.7}, 1]', "Seed": "2"},
    ),
    "JSON and more": ("Steps: 1, A list: [1] x, Seed: 2", {"A list": "[1] x", "Seed": "2"}),
    "JSON that is none": ("Steps: 1, A list: [1, Seed: 2", {"A list": "[1", "Seed": "2"}),
    "quotes that do not end": ('Steps: 1, Model: "a, Seed: 2', {"Model": '"a', "Seed": "2"}),
    "quotes in a value": ('Steps: 1, Model: a "b", Seed: 2', {"Model": 'a "b"', "Seed": "2"}),
    "JSON's escapes": (r'Steps: 1, Model: "a\"\\\n", Seed: 2', {"Model": 'a"\\\n', "Seed": "2"}),
    "half a pair": (r'Steps: 1, Model: "a\ud83d", Seed: 2', {"Model": "a", "Seed": "2"}),
    "line breaks in quotes": (
        'a\nSteps: 1, Wildcard prompt: "b\nc: 1, d", Seed: 2, Sampler: x',
        {"Prompt": "a", "Wildcard prompt": "b\nc: 1, d", "Seed": "2", "Sampler": "x"},
    ),
    "junk between": ("Steps: 1, ???, Seed: 2, , Size: 3,", {"Seed": "2", "Size": "3"}),
    "a date": (
        "Steps: 1, Seed: 2, Created Date: 2025-01-02T03:04:05.6Z, Clip skip: 2",
        {"Created Date": "2025-01-02T03:04:05.6Z", "Clip skip": "2"},
    ),
    "a setting named Prompt": ("a\nSteps: 1, Seed: 2, Prompt: b", {"Prompt": "a"}),
    "nothing": ("", {"Prompt": "", "Negative prompt": ""}),
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_texts_of_others(name):
    text, expected = TEXTS[name]
    found = infotext.parse(text)
    assert {key: found.get(key) for key in expected} == expected
    if list(expected) == ["Prompt"]:
        assert ("Seed" in found) == (name == "a setting named Prompt")


START = "Steps: 1, Seed: 2, Civitai resources: "
UNITS = [
    *("a", '"', "\\", '\\"', " ", "\n", "[", "{", "ab:", 'ab: "', 'ab: "\\', "a -/", "ab: [[],"),
    *('{"a":', "Steps: 1, ", 'Steps: 1, ab: [["', 'Steps: 1, ab: ", c: 1, Seed: 2, d: "\n'),
    *("Negative prompt: ", "Template: x\n", 'Steps: 1, Seed: 2, ab: "x"\n', "\x01"),
]


@pytest.mark.parametrize("start", ["", START, START + '"', START + '["', "x\n"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_million_letters_of_anything_are_read(start, unit):
    """A reader that goes back over what it has seen would need hours for some of these."""
    text = start + unit * ((infotext.MAX_TEXT - len(start)) // len(unit))
    found = infotext.parse(text)
    assert set(found) >= {"Prompt", "Negative prompt"}
    assert all(value in text for value in found.values())


@pytest.mark.parametrize(("code", "cat"), [("utf-8", "猫 cat"), ("ascii", "\\u732b cat")])
def test_info_prints_the_text_alone_whatever_the_terminal(tmp_path, code, cat):
    exif = containers.encode_exif(infotext.build("猫 cat", "", FIELDS))
    size = len(exif).to_bytes(4, "little")
    (tmp_path / "a.webp").write_bytes(b"RIFF\0\0\0\0WEBPEXIF" + size + exif)
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", "info", tmp_path / "a.webp"],
        env=os.environ | {"PYTHONIOENCODING": code, "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    assert ran.stdout.decode(code).splitlines() == infotext.build(cat, "", FIELDS).split("\n")
    assert not ran.stderr
