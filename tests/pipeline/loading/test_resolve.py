"""What a model's name may mean."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.loading.load import load
from pipeline.loading.resolve import find_model
from pipeline.model_files import library

UNET = "unet/diffusion_pytorch_model.safetensors"


NAMES = [
    ("emoij", "none is here"),
    ("", "is a name"),
    (None, "is a name"),
    (7, "is a name"),
    (b"emoji", "is a name"),
    ("a\0b", "not printable"),
    ("a\x1b[31m", "not printable"),
    ("\ud800", "not printable"),
    ("x" * 100_000, "too long"),
    ("\\\\host\\share", "network path"),
    ("//host/share", "network path"),
    ("..", "no model_index.json"),
    ("../nowhere", "no model folder"),
    ("./nowhere", "no model folder"),
    ("/nowhere/at/all", "no model folder"),
    ("a/b/c", "no model folder"),
    ("model.ckpt", "There is no file"),
    ("nowhere.safetensors", "There is no file"),
]


def test_available_lists_and_says_why_not(model_folder, tiny_model, sentence):
    shutil.copytree(tiny_model, model_folder / "one")
    shutil.copytree(tiny_model, Path("models/two"))
    (model_folder / "bad").mkdir()
    rows = library.scan()
    assert [(e.name, "model_index.json" in (e.reason or "")) for e in rows] == [
        ("bad", True),
        ("one", False),
        ("two", False),
    ]
    assert {e.kind for e in rows} == {"checkpoint"} and rows[1].family == "SD 1.x"
    assert find_model("one") == model_folder / "one"
    assert find_model("two") == Path("models/two")
    text = sentence(find_model, "ono")
    assert "there is one, " in text and "two" in text and "bad" in text


@pytest.mark.parametrize("name, words", NAMES, ids=[str(i) for i in range(len(NAMES))])
def test_bad_name_gets_a_sentence(model_folder, name, words, sentence):
    assert words in sentence(load, name)


def test_single_files_get_a_sentence(model_folder, tiny_model, sentence):
    shutil.copy(tiny_model / UNET, "model.safetensors")
    Path("model.ckpt").write_bytes(b"\x80\x02")
    Path("fake.safetensors").write_bytes(b"\x80\x02" + bytes(40))
    Path("model.txt").write_text("x")
    text = sentence(load, "model.safetensors")
    assert "is the UNet of a diffusers folder" in text and "SD 1.x, SD 2.x or SD XL" in text
    assert "can run any code" in sentence(load, "model.ckpt")
    assert "is a pickle" in sentence(load, "fake.safetensors")
    assert "is a file of another kind" in sentence(load, "model.txt")
