"""Read the text metadata of PNG, JPEG and WebP files without an image library.

Only the container is parsed and no pixels are decoded, so the cost does not depend on the picture's
size, and text after the pixels is found too. Files are untrusted: lengths and decompressed text are
limited to MAX_BYTES. Formats: PNG (RFC 2083 and its chunk eXIf), JPEG (ITU T.81), WebP (RFC 9649),
EXIF 2.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError

MAX_BYTES = 1_000_000  # of one text in a file, both compressed and decompressed
MAX_PARTS = 100_000  # chunks or segments of a file, ten times those of the largest pictures
MAX_BLOCKS = 16  # of EXIF in a file; programs write one
MAX_TAGS = 4_000  # of a directory of EXIF; 100 are usual
MAX_TEXTS = 5_000  # texts of a file; programs write fewer than ten
EXIF_POINTER, USER_COMMENT = 0x8769, 0x9286  # EXIF tags


class DamagedFile(Exception):
    """Raised for a file that is truncated or violates its format; the message says how."""


def read_texts(path: str | Path, wanted: str = "parameters") -> dict[str, str]:
    """Return the texts in the metadata of a PNG, JPEG or WebP file, by keyword.

    Keywords are those of a PNG's text chunks, and "UserComment" for the EXIF comment. wanted: the
    keyword of the PNG text to read in full, after which reading stops; of the others only the
    beginning is returned, enough to tell which program wrote the file. Raises InputError for a
    missing or unreadable file, another format, and a text above 1 MB.
    """
    if "\0" in str(path):
        raise InputError("The path of the picture holds a NUL character.")
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{path} is no file.")
        with open(path, "rb") as file:
            head = file.read(12)
            walk = next((w for magic, w in FORMATS.items() if head.startswith(magic)), None)
            if walk is None or (walk is _webp and head[8:] != b"WEBP"):
                raise InputError(f"{path} is no PNG, JPEG or WebP picture.")
            if walk is _png:
                return _collect(_png(file, wanted), wanted, path)
            return _collect(walk(file), wanted, path)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


def encode_exif(text: str) -> bytes:
    """Return an EXIF block with `text` as UserComment, in big-endian UTF-16 as A1111 writes it."""
    comment = b"UNICODE\0" + text.encode("utf-16-be")
    first = struct.pack(">HHHLLL", 1, EXIF_POINTER, 4, 1, 26, 0)  # entries; tag, type, count, value
    inner = struct.pack(">HHHLLL", 1, USER_COMMENT, 7, len(comment), 44, 0)
    return b"Exif\0\0MM\0*" + struct.pack(">L", 8) + first + inner + comment


def _collect(walk: Iterator[tuple[str, str]], wanted: str, path: str | Path) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        for count, (key, text) in enumerate(walk):
            if count == MAX_TEXTS:
                raise DamagedFile(f"it has more than {MAX_TEXTS:,} texts")
            found.setdefault(key, text)
            if key == wanted:
                break
    except OverflowError:
        raise InputError(
            f"{path} carries a text of more than {MAX_BYTES:,} bytes, which is not read."
        ) from None
    except DamagedFile as error:
        if not {wanted, "UserComment"} & set(found):
            raise InputError(f"{path} cannot be read: {error}.") from None
    return found


def _png(file: BinaryIO, wanted: str) -> Iterator[tuple[str, str]]:
    file.seek(8)
    exif = _ExifReader()
    for _ in range(MAX_PARTS):
        head = file.read(8)
        if head[4:] == b"IEND":
            return
        if len(head) < 8:
            raise DamagedFile("it ends too early")
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        after = file.tell() + length + 4  # a checksum
        if kind in PNG_TEXTS:
            keyword, _, start = file.read(min(length, 300)).partition(b"\0")
            if keyword != wanted.encode():
                yield keyword[:80].decode("latin-1"), start.decode("latin-1")
            elif length > MAX_BYTES:
                raise OverflowError
            else:
                file.seek(after - length - 4)
                body = _read_exactly(file, length)[len(keyword) + 1 :]
                yield wanted, PNG_TEXTS[kind](body)
        elif kind == b"eXIf":
            yield from exif.read(_read_exactly(file, length))
        file.seek(after)
    raise DamagedFile(f"it has more than {MAX_PARTS:,} parts")


def _decode_itxt(body: bytes) -> str:
    flags, rest = body[:2], body[2:]
    *_, text = rest.split(b"\0", 2)  # language, translated keyword, text
    return (_unzip(text) if flags[:1] == b"\1" else text).decode("utf-8", "replace")


def _unzip(body: bytes) -> bytes:
    try:
        text = zlib.decompressobj().decompress(body, MAX_BYTES + 1)
    except zlib.error:
        return b""
    if len(text) > MAX_BYTES:
        raise OverflowError
    return text


# From the kind of a text chunk to the decoder of what follows its keyword. tEXt and zTXt are in
# Latin-1, iTXt is in UTF-8.
PNG_TEXTS = {
    b"tEXt": lambda body: body.decode("latin-1"),
    b"zTXt": lambda body: _unzip(body[1:]).decode("latin-1"),
    b"iTXt": _decode_itxt,
}


def _jpeg(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(2)
    exif = _ExifReader()
    for _ in range(MAX_PARTS):
        mark, kind = _read_exactly(file, 2)
        if mark != 0xFF:
            raise DamagedFile("there is no marker where one should be")
        if kind == 0xFF:  # padding
            file.seek(-1, 1)
            continue
        if kind in (0xDA, 0xD9):  # the pixels; the end
            return
        length = int.from_bytes(_read_exactly(file, 2), "big")
        if length < 2:
            raise DamagedFile("a segment has no length")
        if kind == 0xE1:
            yield from exif.read(_read_exactly(file, length - 2))
        else:
            file.seek(length - 2, 1)
    raise DamagedFile(f"it has more than {MAX_PARTS:,} parts")


def _webp(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(12)
    exif = _ExifReader()
    for _ in range(MAX_PARTS):
        head = file.read(8)
        if not head:
            return
        if len(head) < 8:
            raise DamagedFile("it ends too early")
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            yield from exif.read(_read_exactly(file, length))
            file.seek(length % 2, 1)
        else:
            file.seek(length + length % 2, 1)
    raise DamagedFile(f"it has more than {MAX_PARTS:,} parts")


# From the first bytes of a file to the function that yields its (keyword, text) pairs.
FORMATS: dict[bytes, Callable[..., Iterator[tuple[str, str]]]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8\xff": _jpeg,
    b"RIFF": _webp,
}


def _read_exactly(file: BinaryIO, length: int) -> bytes:
    if length > 4 * MAX_BYTES:
        raise OverflowError
    body = file.read(length)
    if len(body) < length:
        raise DamagedFile("it ends too early")
    return body


class _ExifReader:
    """Reads the comment of a file's EXIF blocks: of the first that has one, of the first few."""

    def __init__(self) -> None:
        self._left = MAX_BLOCKS

    def read(self, body: bytes) -> Iterator[tuple[str, str]]:
        """Yield ("UserComment", text) for a block, given its bytes, that has this comment."""
        if self._left <= 0 or not body.removeprefix(b"Exif\0\0").startswith((b"II*\0", b"MM\0*")):
            return
        self._left -= 1
        for found in _exif(body):
            self._left = 0
            yield found
            return


def _exif(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield ("UserComment", text) for an EXIF block that has this comment.

    Yields nothing for a block without one and for a damaged block. body: the bytes of the block.
    The comment is looked up in the EXIF directory, then in the first directory, where some programs
    put it.
    """
    tiff = body.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return
    try:
        first = _read_directory(tiff, order, struct.unpack_from(f"{order}L", tiff, 4)[0])
        inner = (
            _read_directory(tiff, order, first[EXIF_POINTER][1]) if EXIF_POINTER in first else {}
        )
        for directory in (inner, first):
            if USER_COMMENT in directory:
                length, offset = directory[USER_COMMENT]
                text = _decode_comment(tiff[offset : offset + length], order)
                if text.strip("\0 "):
                    yield "UserComment", text
    except struct.error:
        return


def _read_directory(tiff: bytes, order: str, start: int) -> dict[int, tuple[int, int]]:
    """Parse a directory of a TIFF (EXIF) block into a dict: {tag: (count, value or its offset)}.

    order: byte order as in struct, "<" or ">". start: offset of the directory in `tiff`. Raises
    struct.error where the bytes are truncated.
    """
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    if count > MAX_TAGS:
        raise struct.error("more tags than a picture needs")
    entries = (struct.unpack_from(f"{order}HHLL", tiff, start + 2 + 12 * i) for i in range(count))
    return {tag: (length, value) for tag, _, length, value in entries}


def _decode_comment(raw: bytes, order: str) -> str:
    """Decode the bytes of a UserComment: eight bytes that name its encoding, then the text.

    order: the EXIF block's byte order, "<" or ">". The name UNICODE should mean UTF-16 in this
    order, but programs also write the other order or UTF-8. All three are tried, and the first
    whose text contains "Steps: " is taken, else the one with the most ASCII characters. Raises
    OverflowError for a text above 1 MB.
    """
    if len(raw) > MAX_BYTES:
        raise OverflowError
    code, body = raw[:8], raw[8:]
    if code not in (b"UNICODE\0", b"ASCII\0\0\0", bytes(8)):
        body = raw
    utf16 = ("utf-16-be", "utf-16-le") if order == ">" else ("utf-16-le", "utf-16-be")
    codes: tuple[str, ...] = ("utf-8", *utf16) if code == b"ASCII\0\0\0" else (*utf16, "utf-8")
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        codes = ("utf-16",)
    readings = [body.decode(c, "replace") for c in codes]
    best = max(readings, key=lambda text: sum(" " <= c <= "~" for c in text))
    return next((text for text in readings if "Steps: " in text), best)
