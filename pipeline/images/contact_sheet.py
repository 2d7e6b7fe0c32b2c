"""Lay out contact sheets: one picture that shows many, in labelled columns, rows and blocks.

A block is one grid of columns and rows; a sheet has a block for each value of a third axis (z). The
layout depends on the pictures' sizes alone, so a sheet that is too large can be refused before any
picture is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from PIL import Image, ImageDraw

from .fonts import LEADING, SMALLEST, Block, fit_text

# Colours of the background, of labels, of the axes' names and of lines.
PAPER, INK, FAINT, RULE = "#ffffff", "#1f2328", "#6e7781", "#d0d7de"
LETTERS = (13, 56)  # smallest and largest font size of a label, in pixels
LEFT, CENTRE, RIGHT = 0.0, 0.5, 1.0  # alignment of a text: share of the free width on its left
NOTHING = Block((), 0, 0, 0)  # an empty text
Place = tuple[int, int, int]  # index of a picture's column, row and block


@dataclass(frozen=True)
class Heading:
    """The texts for one axis (x, y or z) of a contact sheet, a labelled grid of pictures.

    name: of what varies along the axis ("Steps"), "" for none. labels: one for each column, row or
    z value ("20", "30"); a single "" for an axis along which nothing varies.
    """

    name: str = ""
    labels: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Words:
    """A text and its position on a contact sheet: in a column of `width` pixels, from (left, top).

    block: the text, broken into lines. align: 0 left, 0.5 centred, 1 right. colour: such as
    "#1f2328".
    """

    block: Block
    left: int
    top: int
    width: int
    align: float  # LEFT, CENTRE or RIGHT
    colour: str

    def draw(self, canvas: ImageDraw.ImageDraw) -> None:
        """Draw the text on `canvas`, which draws on the contact sheet's picture."""
        free = self.width - self.block.width
        left = self.left + round(self.align * free)
        self.block.draw(canvas, left, self.top, self.colour, self.align)


@dataclass(frozen=True)
class Sheet:
    """The layout of a contact sheet (a labelled grid of pictures), in pixels.

    A sheet has one grid of columns and rows, called a block, for each value of a third axis. boxes:
    from (column, row, block), indices from 0, to the picture's (left, top, right, bottom). words:
    the labels. rules: (left, top, right, bottom) of the line above each block.
    """

    width: int
    height: int
    boxes: dict[Place, tuple[int, int, int, int]]
    words: tuple[Words, ...]
    rules: tuple[tuple[int, int, int, int], ...]

    def draw(self, pictures: Mapping[Place, Image.Image]) -> Image.Image:
        """Draw the contact sheet and return it as an RGB picture.

        pictures: by their indices (column, row, z value), from 0, each of the size for which the
        sheet was laid out; they are pasted without scaling.
        """
        sheet = Image.new("RGB", (self.width, self.height), PAPER)
        canvas = ImageDraw.Draw(sheet)
        for rule in self.rules:
            canvas.rectangle(rule, fill=RULE)
        for words in self.words:
            words.draw(canvas)
        for place, box in self.boxes.items():
            sheet.paste(pictures[place].convert("RGB"), box[:2])
        return sheet


def lay_out(
    sizes: Mapping[Place, tuple[int, int]],
    x: Heading = Heading(),
    y: Heading = Heading(),
    z: Heading = Heading(),
) -> Sheet:
    """Lay out a contact sheet: a labelled grid of columns (x) and rows (y) for each value of z.

    sizes: from the indices (column, row, z value), from 0, to a picture's (width, height) in
    pixels, for all combinations. x, y, z: the texts of the axes; the number of labels is the number
    of columns, rows and grids.

    The grids are arranged so that the sheet is nearly square. A column is as wide as its widest
    picture, a row as high as its highest; smaller pictures are centred. The font size grows with
    the pictures.
    """
    columns, rows, blocks = (range(len(h.labels)) for h in (x, y, z))
    widths = [max(sizes[c, r, b][0] for r in rows for b in blocks) for c in columns]
    heights = [max(sizes[c, r, b][1] for c in columns for b in blocks) for r in rows]
    mean = sum((*widths, *heights)) / (len(columns) + len(rows))
    letters = min(max(round(0.04 * mean + 8.5), LETTERS[0]), LETTERS[1])
    small = max(SMALLEST + 1, round(0.8 * letters))
    gap, pad = max(2, letters // 4), round(0.6 * letters)
    inner = sum(widths) + gap * (len(columns) - 1)

    # Compute the space that the labels take, and from it where the pictures begin.
    beside = max(5 * letters, round(0.6 * sum(widths) / len(widths)))
    y_labels = _fit_labels(y.labels, [beside] * len(rows), heights, letters)
    y_name = _fit_name(y.name, beside, 2, small)
    band = max(block.width for block in (*y_labels, y_name))
    left = band + pad if band else 0
    x_labels = _fit_labels(x.labels, widths, [4 * LEADING * letters] * len(columns), letters)
    x_name = _fit_name(x.name, inner, 1, small)
    x_height = max(block.height for block in x_labels)
    z_name = _fit_name(z.name, left + inner, 1, small)
    z_labels = _fit_labels(
        z.labels, [left + inner] * len(blocks), [3 * LEADING * letters] * len(blocks), letters
    )
    title = z_name.height + max(block.height for block in z_labels)
    title += 2 * pad if title else 0
    header = max(x_name.height + x_height, y_name.height)
    header += pad // 2 if header else 0
    top = title + header
    size = left + inner, top + sum(heights) + gap * (len(rows) - 1)

    boxes, words, rules = {}, [], []
    column_at = list(accumulate((w + gap for w in widths), initial=left))
    row_at = list(accumulate((h + gap for h in heights), initial=top))
    margin = round(1.5 * letters)
    (width, height), corners = _arrange_blocks(len(blocks), size, margin)
    for b, (across, down) in zip(blocks, corners, strict=True):
        if title:
            rules.append((across, down, across + size[0] - 1, down + max(1, letters // 20) - 1))
            at = down + pad // 2
            words.append(Words(z_name, across, at, size[0], LEFT, FAINT))
            at += z_name.height
            words.append(Words(z_labels[b], across, at, size[0], LEFT, INK))
        at = down + top - pad // 2
        words.append(Words(y_name, across, at - y_name.height, band, RIGHT, FAINT))
        x_top = at - x_height - x_name.height
        words.append(Words(x_name, across + left, x_top, inner, CENTRE, FAINT))
        for c in columns:
            x_at = across + column_at[c]
            words.append(Words(x_labels[c], x_at, at - x_height, widths[c], CENTRE, INK))
        for r in rows:
            y_at = down + row_at[r] + (heights[r] - y_labels[r].height) // 2
            words.append(Words(y_labels[r], across, y_at, band, RIGHT, INK))
        for c, r in product(columns, rows):
            w, h = sizes[c, r, b]
            x_at = across + column_at[c] + (widths[c] - w) // 2
            y_at = down + row_at[r] + (heights[r] - h) // 2
            boxes[c, r, b] = (x_at, y_at, x_at + w, y_at + h)
    return Sheet(width, height, boxes, tuple(w for w in words if w.block.width), tuple(rules))


def _fit_name(text: str, width: float, lines: int, size: int) -> Block:
    return fit_text(text, width, lines * LEADING * size, size) if text else NOTHING


def _fit_labels(
    texts: Sequence[str], widths: Sequence[float], heights: Sequence[float], size: int
) -> list[Block]:
    """Break the labels of one axis of a contact sheet into lines, all at one font size.

    It is the largest, up to `size` pixels, at which each label fits its space of widths[i] x
    heights[i] pixels; labels that do not fit at the smallest are cut off.
    """
    if not any(texts):
        return [NOTHING] * len(texts)
    rooms = list(zip(texts, widths, heights, strict=True))
    size = min(fit_text(*room, size).size for room in rooms)
    return [fit_text(*room, size) for room in rooms]


def _arrange_blocks(
    count: int, size: tuple[int, int], margin: int
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Arrange `count` equally large grids on a contact sheet so that it is most nearly square.

    Returns the sheet's (width, height) and each grid's (left, top). size: (width, height) of a
    grid. margin: space around each. All in pixels.
    """

    def sheet_size(across: int) -> tuple[int, int]:
        down = -(-count // across)
        width = across * size[0] + (across + 1) * margin
        return width, down * size[1] + (down + 1) * margin

    across = min(range(1, count + 1), key=lambda n: (max(sheet_size(n)) / min(sheet_size(n)), -n))
    steps = [side + margin for side in size]
    corners = [
        (margin + b % across * steps[0], margin + b // across * steps[1]) for b in range(count)
    ]
    return sheet_size(across), corners
