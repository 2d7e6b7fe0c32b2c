"""Pictures on the disk: three formats that keep their text, and paths that cannot be."""

import resource
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import InputError
from pipeline.metadata import infotext
from pipeline.metadata.save import check_writable, save_picture

FIELDS = {"Steps": 20, "Sampler": "Euler a", "CFG scale": 7.0, "Seed": 42, "Size": "512x512"}
ENDINGS = [".png", ".jpg", ".jpeg", ".webp"]


def picture(text: str | None = None) -> Image.Image:
    out = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    if text is not None:
        out.info["parameters"] = text
    return out


hostile = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(prompt=hostile, negative=hostile)
def test_round_trip_of_any_prompt(tmp_path, ending, prompt, negative):
    text = infotext.build(prompt, negative, FIELDS)
    read = infotext.read(save_picture(picture(text), tmp_path / f"a{ending}"))
    assert read == text
    found = infotext.parse(read)
    assert (found["Prompt"], found["Negative prompt"]) == (prompt, negative)


# The first letter's bytes, a mark of byte order or mostly zeros, must not mislead the reader.
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "prompt", ["蓝色背景上的红苹果", "一" * 9000, "\ufeffa", "\ufffea", "🍎é", ""]
)
def test_round_trip_of_other_scripts(tmp_path, ending, prompt):
    text = infotext.build(prompt, "", FIELDS)
    read = infotext.read(save_picture(picture(text), tmp_path / f"a{ending}"))
    assert read == text and infotext.parse(read)["Prompt"] == prompt


@pytest.mark.parametrize(
    ("ending", "kind"), zip(ENDINGS, ["PNG", "JPEG", "JPEG", "WEBP"], strict=True)
)
def test_the_file_is_what_its_ending_says_and_the_picture_stays(tmp_path, ending, kind):
    path = save_picture(picture("a cat"), tmp_path / f"a{ending.upper()}")
    with Image.open(path) as opened:
        assert opened.format == kind
        pairs = zip(opened.convert("RGB").tobytes(), picture().tobytes(), strict=True)
        worst = max(abs(a - b) for a, b in pairs)
    assert worst == 0 if kind == "PNG" else worst < 16
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("text", ["a café", "蓝色"])
def test_png_text_is_where_pillow_and_so_a1111_looks(tmp_path, text):
    with Image.open(save_picture(picture(text), tmp_path / "a.png")) as opened:
        assert opened.info["parameters"] == text


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_exif_is_as_piexif_writes_it_for_a1111(tmp_path, ending):
    with Image.open(save_picture(picture("a 蓝"), tmp_path / f"a{ending}")) as opened:
        exif = opened.getexif()
        assert exif.endian == ">"
        assert exif.get_ifd(0x8769) == {0x9286: b"UNICODE\0\0a\0 \x84\xdd"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_picture_without_text(tmp_path, ending):
    path = save_picture(picture(), tmp_path / f"a{ending}")
    with pytest.raises(InputError, match="no parameters text"):
        infotext.read(path)


def test_the_longest_text_that_a_jpeg_holds(tmp_path):
    longest = (65_533 - 58) // 2
    path = save_picture(picture("x" * longest), tmp_path / "a.jpg")
    assert infotext.read(path) == "x" * longest
    with pytest.raises(InputError, match=r"take 65,534 bytes .* holds 65,533; \.png"):
        save_picture(picture("y" * (longest + 1)), path)
    assert infotext.read(path)[0] == "x" and len(list(tmp_path.iterdir())) == 1
    for ending in (".png", ".webp"):
        assert len(infotext.read(save_picture(picture("é🍎" * 40_000), tmp_path / f"b{ending}")))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.bmp", r"must end in \.png, \.jpg, \.jpeg or \.webp, not 'a.bmp'"),
        ("png", "must end in"),
        ("none/a.png", "does not exist"),
        ("folder.png", "is a folder"),
        ("a\0.png", "NUL"),
    ],
)
def test_paths_that_cannot_be(tmp_path, name, sentence):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=sentence):
        check_writable(tmp_path / name)
    with pytest.raises(InputError, match=sentence):
        save_picture(picture(), tmp_path / name)


def test_a_picture_that_a_format_cannot_hold_leaves_no_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"old")
    with pytest.raises(InputError, match="cannot write mode RGBA as JPEG"):
        save_picture(Image.new("RGBA", (8, 8)), tmp_path / "a.jpg")
    with pytest.raises(InputError, match="Cannot write"):
        save_picture(Image.new("RGB", (20_000, 1)), tmp_path / "a.webp")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"]
    assert (tmp_path / "a.jpg").read_bytes() == b"old"


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("room", [0, 1, 4096, 20_000])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, ending, room):
    """A file may have `room` bytes, so that the operating system writes a part of a block."""
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(3).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        with pytest.raises(InputError, match="Cannot write"):
            save_picture(picture, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(path.name, b"old")]
