"""Draw text of any language on pictures: choose fonts, break lines, fit the text into a box.

Pillow's built-in font covers English. Other characters come from the system's fonts, the font that
matplotlib ships, or fonts that fontconfig proposes where it is installed. A text is drawn in the
first face (a font file, or one font of a collection) that has all of its characters; without such
a face, each character in the first face that has it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from PIL import ImageDraw, ImageFont

LEADING = 1.3  # distance of baselines, in font sizes
SHRINK = (1.0, 0.85, 0.72, 0.6)  # font sizes to try, as shares of the requested size
SMALLEST = 10  # font size in pixels; smaller text is illegible
LONGEST = 400  # characters of a text; the rest is cut off
ELLIPSIS = "..."
BUILT_IN = ("", 0)  # the Face that stands for Pillow's built-in font

# File names in order of preference: fonts of Linux, macOS and Windows.
PREFERRED = (
    *("NotoSans-Regular.ttf", "HelveticaNeue.ttc", "segoeui.ttf", "LiberationSans-Regular.ttf"),
    *("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf"),
    *("NotoSansSC-Regular.otf", "NotoSansSC-Regular.ttf", "SourceHanSansSC-Regular.otf"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Light.ttc", "msyh.ttc", "simsun.ttc"),
    *("malgun.ttf", "YuGothR.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc"),
    *("DroidSansFallbackFull.ttf", "Arial Unicode.ttf", "Nirmala.ttf", "Nirmala.ttc"),
    *("LeelawUI.ttf", "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf"),
    *("NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "seguisym.ttf"),
    *("NotoSansSymbols2-Regular.ttf", "NotoEmoji-Regular.ttf", "Symbola.ttf"),
)
FOLDERS = {  # folders of fonts by sys.platform; UNIX elsewhere
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (
        os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"),
        r"~\AppData\Local\Microsoft\Windows\Fonts",
    ),
}
UNIX = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")

Face = tuple[str, int]  # path of a font file, and the index of a face in it


@dataclass(frozen=True)
class Block:
    """A text broken into lines, ready to be drawn on a picture.

    size: of the font. width, height: of the whole text. All in pixels.
    """

    lines: tuple[str, ...]
    size: int
    width: int
    height: int

    def draw(
        self, canvas: ImageDraw.ImageDraw, left: float, top: float, colour: str, align: float = 0
    ) -> None:
        """Draw the lines on `canvas`; (left, top) is the top left corner of the text in pixels.

        colour: as Pillow takes it ("#1f2328"). align: how lines shorter than the longest are
        aligned: 0 left, 0.5 centred, 1 right.
        """
        for i, line in enumerate(self.lines):
            x = left + align * (self.width - measure(line, self.size))
            baseline = top + (i * LEADING + 1.0) * self.size
            for run, face in runs(line):
                used = font(face, self.size)
                canvas.text((round(x), round(baseline)), run, fill=colour, font=used, anchor="ls")
                x += used.getlength(run)


def fit_text(text: str, width: float, height: float, size: int) -> Block:
    """Break `text` into lines that fit a box of `width` x `height` pixels.

    size: the largest font size in pixels. Where the text does not fit, smaller sizes are tried,
    down to 60 % of `size` but not below 10 pixels; then it is cut off with "...". At least one line
    is returned, even where it does not fit.
    """
    text = clean(text)
    sizes = dict.fromkeys(max(SMALLEST, round(size * share)) for share in SHRINK)
    for tried in sizes:
        lines, whole = _wrap(text, width, tried)
        room = max(1, int(height / (LEADING * tried)))
        if whole and len(lines) <= room:
            break
    if len(lines) > room:
        lines = [*lines[: room - 1], _cut(lines[room - 1] + ELLIPSIS, width, tried)]
    widest = max(measure(line, tried) for line in lines)
    return Block(tuple(lines), tried, -int(-widest // 1), -int(-len(lines) * LEADING * tried // 1))


def clean(text: str) -> str:
    """Return `text` as one line without control characters, so that it can be drawn as a label.

    After 400 characters (LONGEST) it is cut off with "...".
    """
    text = "".join(" " if c.isspace() else c for c in text[: 4 * LONGEST])
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs"))
    text = re.sub(" +", " ", text).strip()
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + ELLIPSIS


def measure(text: str, size: int) -> float:
    """Return the width of one line of text in pixels, at a font size of `size` pixels."""
    return sum(font(face, size).getlength(run) for run, face in runs(text))


def _wrap(text: str, width: float, size: int) -> tuple[list[str], bool]:
    """Break `text` into lines of at most `width` pixels; return (lines, whether no word was split).

    size: of the font in pixels.
    """
    lines, line, whole = [], "", True
    for piece in _pieces(text):
        if measure((line + piece).rstrip(), size) <= width:
            line += piece
            continue
        if line.strip():
            lines.append(line.rstrip())
        line = piece
        while measure(line.rstrip(), size) > width and len(line) > 1:
            head = _head(line, width, size)
            whole = False
            lines.append(line[:head])
            line = line[head:]
    return [*lines, line.rstrip()] if line.strip() or not lines else lines, whole


def _pieces(text: str) -> Iterator[str]:
    """Yield the parts of `text` between which a line may break.

    These are words with their trailing space; of Chinese and Japanese, single characters, with
    punctuation attached to the character before it.
    """
    start = 0
    for i in range(1, len(text)):
        before, here = text[i - 1], text[i]
        wide = "W" in (_width(before), _width(here)) and unicodedata.category(here) not in CLOSING
        if here != " " and not _joins(here) and (before == " " or wide):
            yield text[start:i]
            start = i
    yield text[start:]


CLOSING = ("Pe", "Pf", "Po")  # Unicode categories of punctuation that may not begin a line


def _width(char: str) -> str:
    return "W" if unicodedata.east_asian_width(char) in "WF" else ""


def _head(line: str, width: float, size: int) -> int:
    """Return how many characters of a long word fit into `width` pixels, at least one.

    Combining marks are not separated from their letter. size: of the font in pixels.
    """
    fits = 1
    while fits < len(line) and measure(line[: fits + 1], size) <= width:
        fits += 1
    while 1 < fits < len(line) and _joins(line[fits]):
        fits -= 1
    return fits


def _cut(line: str, width: float, size: int) -> str:
    """Shorten `line` before the "..." at its end so that all of it fits into `width` pixels.

    size: of the font in pixels.
    """
    kept = line.removesuffix(ELLIPSIS)
    while kept and measure(kept + ELLIPSIS, size) > width:
        kept = kept[:-1]
    return kept.rstrip(" .,") + ELLIPSIS


def _joins(char: str) -> bool:
    """Return whether a character attaches to the one before it (a combining mark, a joiner)."""
    return unicodedata.category(char) in ("Mn", "Mc", "Me", "Cf")


@lru_cache(maxsize=4096)
def runs(text: str) -> tuple[tuple[str, Face], ...]:
    """Split `text` into (part of the text, the font face to draw it in), in order.

    A face is (font file, index of a font in it). One face for the whole text is preferred;
    characters that no face has are drawn in Pillow's built-in font, ("", 0).
    """
    needed = tuple(dict.fromkeys(c for c in text if not c.isspace() and not _joins(c)))
    for face in faces():
        if all(has(face, c) for c in needed):
            return ((text, face),)
    foreign = _fontconfig("".join(c for c in needed if not _is_known(c)))
    pieces: list[tuple[str, Face]] = []
    for char in text:
        if pieces and (char.isspace() or _joins(char)):
            face = pieces[-1][1]
        else:
            some = (f for f in (*faces(), *foreign) if has(f, char))
            face = next(some, BUILT_IN)
        if pieces and pieces[-1][1] == face:
            pieces[-1] = pieces[-1][0] + char, face
        else:
            pieces.append((char, face))
    return tuple(pieces)


def _is_known(char: str) -> bool:
    return any(has(face, char) for face in faces())


@lru_cache(maxsize=1)
def faces() -> tuple[Face, ...]:
    """Return the font faces to choose from, preferred ones first: Pillow's, then installed ones.

    A face is (font file, index of a font in it); Pillow's built-in font is ("", 0).
    """
    there = _files()
    paths = [there[name.lower()] for name in PREFERRED if name.lower() in there]
    found = (face for path in (*paths, *_matplotlib()) if (face := _face(path)))
    return BUILT_IN, *found


def _files() -> dict[str, str]:
    """Return a dict from lower-case file name to path of the files in the system's font folders."""
    found: dict[str, str] = {}
    for place in FOLDERS.get(sys.platform, UNIX):
        for folder, _, names in os.walk(os.path.expanduser(place)):
            for name in names:
                found.setdefault(name.lower(), os.path.join(folder, name))
    return found


def _matplotlib() -> Iterator[str]:
    spec = importlib.util.find_spec("matplotlib")
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            yield str(path)


def _face(path: str) -> Face | None:
    """Choose the font of a file to draw with: (path, index in it), or None for a broken file.

    In a collection (.ttc) a font of regular style is preferred, then one for simplified Chinese.
    """
    found = []
    for index in range(12 if path.lower().endswith((".ttc", ".otc")) else 1):
        try:
            family, style = ImageFont.truetype(path, 12, index).getname()
        except (OSError, ValueError):  # a broken file, or an index past the last face
            break
        found.append((style != "Regular", not str(family).endswith(" SC"), index))
    return (path, min(found)[-1]) if found else None


@lru_cache(maxsize=256)
def _fontconfig(characters: str) -> tuple[Face, ...]:
    """Return the font faces that fontconfig's fc-match proposes for `characters`.

    A face is (font file, index of a font in it). Only the first 8 characters are looked up. ()
    where fc-match is not installed.
    """
    program = shutil.which("fc-match") if characters else None
    if not program:
        return ()
    found = []
    for char in characters[:8]:
        ask = [program, "--format=%{file}|%{index}", f":charset={ord(char):x}"]
        try:
            output = subprocess.run(ask, capture_output=True, text=True, timeout=5).stdout
            path, _, index = output.partition("|")
            ImageFont.truetype(path, 12, int(index))
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        found.append((path, int(index)))
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=512)
def font(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """Load a font face at a font size of `size` pixels.

    face: (font file, index of a font in it), or ("", 0) for Pillow's built-in font.
    """
    path, index = face
    if path:
        return ImageFont.truetype(path, size, index)
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


@lru_cache(maxsize=65536)
def has(face: Face, char: str) -> bool:
    """Return whether a font face can draw `char`: its glyph is not the one for missing characters.

    face: (font file, index of a font in it).
    """
    return _shape(face, char) != _shape(face, "\U0010fffd")


def _shape(face: Face, char: str) -> tuple:
    mask = font(face, 24).getmask(char)
    return mask.size, bytes(mask)
