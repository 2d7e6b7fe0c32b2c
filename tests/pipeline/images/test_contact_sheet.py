"""Sheets: each picture at its place as it is, labels beside it, nothing over anything else."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images.contact_sheet import Heading, lay_out

WORDS = st.sampled_from(["", "3", "Euler a", "红苹果", "a very long prompt with many words " * 5])
SIDES = st.sampled_from([64, 72, 128, 200])


@st.composite
def headings(draw):
    labels = draw(st.lists(WORDS, min_size=1, max_size=3))
    return Heading(draw(WORDS), tuple(labels))


def noise(size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng().integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels, "RGB")


def box_of(words) -> tuple[int, int, int, int]:
    left = words.left + round(words.align * (words.width - words.block.width))
    return left, words.top, left + words.block.width, words.top + words.block.height


def apart(a, b) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@settings(max_examples=25, deadline=None)
@given(headings(), headings(), headings(), st.data())
def test_nothing_lies_over_anything_and_every_picture_is_whole(x, y, z, data):
    places = list(product(*(range(len(h.labels)) for h in (x, y, z))))
    sizes = {place: (data.draw(SIDES), data.draw(SIDES)) for place in places}
    layout = lay_out(sizes, x, y, z)
    pictures = {place: noise(size) for place, size in sizes.items()}
    sheet = layout.draw(pictures)
    assert sheet.size == (layout.width, layout.height) and sheet.mode == "RGB"
    for place, picture in pictures.items():
        assert np.array_equal(np.array(sheet.crop(layout.boxes[place])), np.array(picture))
    boxes = [*layout.boxes.values(), *(box_of(words) for words in layout.words)]
    assert all(apart(a, b) for a, b in combinations(boxes, 2))
    for place, (left, top, right, bottom) in layout.boxes.items():  # centred in column and row
        first, side = layout.boxes[place[0], 0, place[2]], layout.boxes[0, place[1], place[2]]
        assert abs(left + right - first[0] - first[2]) <= 1
        assert abs(top + bottom - side[1] - side[3]) <= 1
    for left, top, right, bottom in boxes:
        assert min(left, top) > 0 and right < layout.width and bottom < layout.height


def test_columns_rows_and_blocks_stand_in_order():
    sizes = {place: (64, 64) for place in product(range(3), range(2), range(2))}
    boxes = lay_out(
        sizes, Heading("a", ("1", "2", "3")), Heading("b", ("1", "2")), Heading("c", ("1", "2"))
    ).boxes
    for column, row, block in boxes:
        left, top, *_ = boxes[column, row, block]
        if column:
            assert left > boxes[column - 1, row, block][0] and top == boxes[0, row, block][1]
        if row:
            assert top > boxes[column, row - 1, block][1] and left == boxes[column, 0, block][0]
        if block:
            assert (left, top) > boxes[column, row, 0][:2]


def test_each_label_is_there_in_ink_and_others_look_otherwise():
    def labels(*texts: str) -> np.ndarray:
        sizes = {(column, 0, 0): (128, 128) for column in range(len(texts))}
        layout = lay_out(sizes, Heading("CFG Scale", texts))
        sheet = np.array(layout.draw({p: Image.new("RGB", s) for p, s in sizes.items()}))
        for left, top, right, _ in layout.boxes.values():
            above = sheet[:top, left:right]
            assert (above.min(-1) < 100).sum() > 10  # dark, of the letters
        return sheet

    assert not np.array_equal(labels("3", "7"), labels("3", "9"))
    assert not np.array_equal(labels("红苹果", "7"), labels("a", "7"))


def test_labels_grow_with_the_pictures_within_limits():
    heights = []
    for side in (64, 128, 512, 1024, 2048):
        layout = lay_out({(0, 0, 0): (side, side)}, Heading("CFG Scale", ("7",)))
        heights.append(max(words.block.size for words in layout.words))
    assert heights == sorted(heights) and heights[0] == 13 and heights[-1] == 56


def test_many_blocks_make_no_ribbon():
    sizes = {(0, 0, block): (64, 64) for block in range(9)}
    layout = lay_out(sizes, z=Heading("Seed", tuple("123456789")))
    assert 0.5 < layout.width / layout.height < 2
