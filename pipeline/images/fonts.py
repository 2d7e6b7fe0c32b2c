"""Words on pictures: a font that has the letters, lines that fit, in any language.

Pillow's own font is the same everywhere and has plain English; what it lacks comes from the
system's fonts, from the one that matplotlib ships, or from fontconfig where that is there. A text
is set in the first of them that has all of its characters, else character by character.
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

LEADING = 1.3  # from line to line, in font sizes
SHRINK = (1.0, 0.85, 0.72, 0.6)  # sizes that are tried, in shares of the one asked for
SMALLEST = 10  # pixels: below, nothing can be read
LONGEST = 400  # characters of a label; no sheet has room for more
ELLIPSIS = "..."
BUILT_IN = ("", 0)

# By file name, in this order. Noto and Source Han are Linux's, then macOS's, then Windows's.
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
FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (
        os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"),
        r"~\AppData\Local\Microsoft\Windows\Fonts",
    ),
}
UNIX = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")

Face = tuple[str, int]  # a font file and which of its faces


@dataclass(frozen=True)
class Block:
    """Lines of text that were made to fit. width and height in pixels."""

    lines: tuple[str, ...]
    size: int
    width: int
    height: int

    def draw(self, canvas: ImageDraw.ImageDraw, left: float, top: float, colour, align: float = 0):
        """Into the column from `left`, `self.width` wide; align: 0 left, 0.5 centred, 1 right."""
        for i, line in enumerate(self.lines):
            x = left + align * (self.width - measure(line, self.size))
            baseline = top + (i * LEADING + 1.0) * self.size
            for run, face in runs(line):
                used = font(face, self.size)
                canvas.text((round(x), round(baseline)), run, fill=colour, font=used, anchor="ls")
                x += used.getlength(run)


def fit_text(text: str, width: float, height: float, size: int) -> Block:
    """`text` in lines no wider than `width`, together no higher than `height`, of letters of at
    most `size` pixels: smaller where they must be, cut short with dots where even that is too much.
    One line there always is.
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
    """One line without control characters, cut where no label has room for more."""
    text = "".join(" " if c.isspace() else c for c in text[: 4 * LONGEST])
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs"))
    text = re.sub(" +", " ", text).strip()
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + ELLIPSIS


def measure(text: str, size: int) -> float:
    """How wide a line is, in pixels."""
    return sum(font(face, size).getlength(run) for run, face in runs(text))


def _wrap(text: str, width: float, size: int) -> tuple[list[str], bool]:
    """Lines no wider than `width`, and whether no word was torn for it."""
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
    """Words with the space behind them; of Chinese and Japanese, characters."""
    start = 0
    for i in range(1, len(text)):
        before, here = text[i - 1], text[i]
        wide = "W" in (_width(before), _width(here)) and unicodedata.category(here) not in CLOSING
        if here != " " and not _joins(here) and (before == " " or wide):
            yield text[start:i]
            start = i
    yield text[start:]


CLOSING = ("Pe", "Pf", "Po")  # brackets and full stops do not begin a line


def _width(char: str) -> str:
    return "W" if unicodedata.east_asian_width(char) in "WF" else ""


def _head(line: str, width: float, size: int) -> int:
    """How many characters of a word go onto one line: at least one, marks with their letter."""
    fits = 1
    while fits < len(line) and measure(line[: fits + 1], size) <= width:
        fits += 1
    while 1 < fits < len(line) and _joins(line[fits]):
        fits -= 1
    return fits


def _cut(line: str, width: float, size: int) -> str:
    """The line, cut before its dots until it fits."""
    kept = line.removesuffix(ELLIPSIS)
    while kept and measure(kept + ELLIPSIS, size) > width:
        kept = kept[:-1]
    return kept.rstrip(" .,") + ELLIPSIS


def _joins(char: str) -> bool:
    """Whether the character belongs to the one before it: marks, joiners, selectors."""
    return unicodedata.category(char) in ("Mn", "Mc", "Me", "Cf")


@lru_cache(maxsize=4096)
def runs(text: str) -> tuple[tuple[str, Face], ...]:
    """`text` in pieces of one face each."""
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
    """The faces there are here, the first to be taken first."""
    there = _files()
    paths = [there[name.lower()] for name in PREFERRED if name.lower() in there]
    found = (face for path in (*paths, *_matplotlib()) if (face := _face(path)))
    return BUILT_IN, *found


def _files() -> dict[str, str]:
    """The system's font files by their names in small letters."""
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
    """The face of a file; of a collection an upright one, simplified Chinese where there is one.
    None for a broken file."""
    found = []
    for index in range(12 if path.lower().endswith((".ttc", ".otc")) else 1):
        try:
            family, style = ImageFont.truetype(path, 12, index).getname()
        except (OSError, ValueError):  # past the last one
            break
        found.append((style != "Regular", not str(family).endswith(" SC"), index))
    return (path, min(found)[-1]) if found else None


@lru_cache(maxsize=256)
def _fontconfig(characters: str) -> tuple[Face, ...]:
    """Faces that fontconfig names for characters that no face of `faces` has."""
    program = shutil.which("fc-match") if characters else None
    if not program:
        return ()
    found = []
    for char in characters[:8]:
        ask = [program, "--format=%{file}|%{index}", f":charset={ord(char):x}"]
        try:
            said = subprocess.run(ask, capture_output=True, text=True, timeout=5).stdout
            path, _, index = said.partition("|")
            ImageFont.truetype(path, 12, int(index))
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        found.append((path, int(index)))
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=512)
def font(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """The face at `size` pixels."""
    path, index = face
    if path:
        return ImageFont.truetype(path, size, index)
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


@lru_cache(maxsize=65536)
def has(face: Face, char: str) -> bool:
    """Whether the face draws the character otherwise than one that does not exist."""
    return _shape(face, char) != _shape(face, "\U0010fffd")


def _shape(face: Face, char: str) -> tuple:
    mask = font(face, 24).getmask(char)
    return mask.size, bytes(mask)
