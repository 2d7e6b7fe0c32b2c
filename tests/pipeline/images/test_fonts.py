"""Labels: every letter has a font, every line fits, nothing but what must be is left out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.images import fonts
from pipeline.images.fonts import BUILT_IN, ELLIPSIS, LEADING, LONGEST, SMALLEST, fit_text, measure

TEXTS = st.text(
    st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Z", "Cc", "Cf")), max_size=60
) | st.lists(st.sampled_from(["a", "red", "红苹果", "apple,", "é", "Ω", "猫。", "8k"])).map(
    " ".join
)


def ink(text: str, width: int = 400, height: int = 60, size: int = 24) -> np.ndarray:
    """How dark each pixel is where `text` was set."""
    page = Image.new("RGB", (width, height), "#ffffff")
    fit_text(text, width, height, size).draw(ImageDraw.Draw(page), 0, 0, "#000000")
    return 255 - np.array(page.convert("L"), dtype=int)


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.integers(20, 400), st.integers(10, 200), st.integers(SMALLEST, 40))
def test_a_text_fits_into_its_room(text, width, height, size):
    block = fit_text(text, width, height, size)
    assert SMALLEST <= block.size <= size and block.lines
    assert len(block.lines) == 1 or len(block.lines) * LEADING * block.size <= height
    widest = max(measure(line, block.size) for line in block.lines)
    # one character there always is, however narrow the room
    assert widest <= width or any(len(line) <= 4 for line in block.lines)
    assert widest <= block.width < widest + 1


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.integers(20, 400), st.integers(SMALLEST, 40))
def test_with_room_enough_no_character_is_lost(text, width, size):
    block = fit_text(text, width, 100_000, size)
    assert "".join("".join(block.lines).split()) == "".join(fonts.clean(text).split())
    assert block.size == size or any(len(line.split()) == 1 for line in block.lines)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_the_pieces_of_a_text_are_the_text(text):
    assert "".join(piece for piece, _ in fonts.runs(text)) == text
    assert all(a[1] != b[1] for a, b in pairwise(fonts.runs(text)))


def test_words_stay_whole_and_chinese_may_break_anywhere_but_before_a_full_stop():
    block = fit_text("a red apple on a blue background", 100, 200, 14)
    assert len(block.lines) > 1 and " ".join(block.lines) == "a red apple on a blue background"
    width = measure("在蓝色", 14) + 1
    lines = fit_text("在蓝色背景。上", width, 200, 14).lines
    assert "".join(lines) == "在蓝色背景。上" and not any(line[0] == "。" for line in lines)


def test_letters_shrink_before_anything_is_left_out():
    text = "a red apple on a blue background"
    room = fit_text(text, 120, 1000, 20)
    less = fit_text(text, 120, room.height * 0.8, 20)
    least = fit_text(text, 120, 20, 20)
    assert room.size > less.size >= 12 and " ".join(less.lines) == text
    assert least.lines[-1].endswith(ELLIPSIS) and least.size == 12


def test_a_text_without_end_is_cut_and_control_characters_are_left_out():
    assert fonts.clean("a\nb\tc\0d \x07 e") == "a b cd e"
    assert fonts.clean("x" * 10**6) == "x" * LONGEST + ELLIPSIS
    assert fonts.clean(" \n ") == "" and fit_text("", 50, 20, 14).width == 0


@pytest.mark.parametrize("size", [10, 13, 24, 56])
def test_words_are_there_and_different_words_look_different(size):
    words = ["CFG 7", "CFG 1", "Euler a", "Stärke", "0.25"]
    seen = {ink(word, 400, 100, size).tobytes() for word in words}
    assert len(seen) == len(words)
    for word in words:
        dark = ink(word, 400, 100, size)
        assert (dark > 128).sum() > size and dark[:, int(measure(word, size)) + 2 :].max() == 0
        assert dark[int(LEADING * size) + 1 :].max() == 0  # inside its line
    assert ink(" ").max() == 0


def test_the_built_in_font_has_plain_english_and_others_the_rest():
    assert fonts.runs("Euler a, CFG 7.5 (x2)") == (("Euler a, CFG 7.5 (x2)", BUILT_IN),)
    ((_, face),) = fonts.runs("Größe")
    assert face != BUILT_IN  # matplotlib's, where the system has none
    assert all(fonts.has(face, c) for c in "Größe")
    assert not fonts.has(BUILT_IN, "红") and fonts.has(BUILT_IN, "a")


def test_chinese_is_set_in_a_font_that_has_it():
    able = [face for face in fonts.faces() if fonts.has(face, "红")]
    if not able:
        pytest.skip("no font here has Chinese")
    assert fonts.runs("红苹果 on blue") == (("红苹果 on blue", able[0]),)
    assert not np.array_equal(ink("红"), ink("蓝"))


def test_what_no_font_has_does_not_stop_a_label(monkeypatch):
    monkeypatch.setattr(fonts, "faces", lambda: (BUILT_IN,))
    monkeypatch.setattr(fonts.shutil, "which", lambda name: None)
    fonts.runs.cache_clear()
    fonts._fontconfig.cache_clear()
    try:
        assert ink("苹果 \U0001f34e").max() > 128
    finally:
        fonts.runs.cache_clear()
        fonts._fontconfig.cache_clear()


def test_broken_font_files_are_passed_over(tmp_path):
    for name in ("a.ttf", "b.ttc"):
        (tmp_path / name).write_bytes(b"no font")
        assert fonts._face(str(tmp_path / name)) is None
    assert fonts._face(str(tmp_path / "missing.otf")) is None
