"""The A1111 parameters text, there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import infotext
from pipeline.errors import InputError
from pipeline.files import save_picture

FIELDS = {"Steps": 20, "Sampler": "Euler a", "CFG scale": 7.0, "Seed": 42, "Size": "512x512"}


def test_layout():
    text = infotext.build("a cat", "blurry", FIELDS)
    assert text == (
        "a cat\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512"
    )


def test_empty_negative_is_left_out():
    assert "Negative" not in infotext.build("a cat", "", FIELDS)


def test_reads_what_a1111_writes():
    text = (
        "masterpiece, (a cat:1.2)\nsecond line\nNegative prompt: bad, worse\nand more\n"
        'Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Lora hashes: "a: 1, b: 2", Model: x'
    )
    found = infotext.parse(text)
    assert found["Prompt"] == "masterpiece, (a cat:1.2)\nsecond line"
    assert found["Negative prompt"] == "bad, worse\nand more"
    assert found["Sampler"] == "DPM++ 2M Karras" and found["Lora hashes"] == "a: 1, b: 2"


line = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=40).filter(
    lambda s: not s.startswith("Negative prompt: ") and "\n" not in s
)


@given(prompt=line, negative=line, model=line.map(str.strip).filter(bool))
def test_round_trip(prompt, negative, model):
    text = infotext.build(prompt, negative, FIELDS | {"Model": model})
    found = infotext.parse(text)
    assert found["Model"] == model and found["Seed"] == "42"
    assert (found["Prompt"], found["Negative prompt"]) == (prompt, negative)


@pytest.mark.parametrize("prompt", ["a cat", "蓝色背景上的红苹果", "emoji 🍎"])
def test_a_picture_keeps_its_text(tmp_path, prompt):
    picture = Image.new("RGB", (8, 8))
    picture.info["parameters"] = infotext.build(prompt, "", FIELDS)
    path = save_picture(picture, tmp_path / "a.png")
    assert infotext.read(path) == picture.info["parameters"]


def test_exif_comment_is_read(tmp_path):
    picture, exif = Image.new("RGB", (8, 8)), Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a cat\nSteps: 1".encode("utf-16-be")
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert infotext.read(tmp_path / "a.jpg") == "a cat\nSteps: 1"


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no file"):
        infotext.read(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="no PNG"):
        infotext.read(tmp_path / "text.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(InputError, match="no parameters"):
        infotext.read(tmp_path / "plain.png")
    with pytest.raises(InputError):
        infotext.read(tmp_path)
