"""Check how a picture file is built before a decoder sees it: its parts, and the memory it takes.

A decoder's cost depends on more than a picture's size. A directory of EXIF may name the same bytes
thousands of times, a comment may come in millions of pieces, an AVIF may hold far more pixels than
it declares. Only the container is walked here, in time proportional to the number of its parts,
which is limited. Formats: PNG (RFC 2083), JPEG (ITU T.81), GIF89a, BMP, TIFF 6.0 and BigTIFF, RIFF
(RFC 9649), ISO base media (ISO 14496-12), AV1 (its specification's section 5.5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

MAX_PARTS = 100_000  # chunks, segments or blocks of a file, ten times those of the largest pictures
MAX_METADATA_PARTS = 5_000  # of them such as hold no pixels
MAX_EXIF_PARTS = 16  # segments of a JPEG that together make up its EXIF
MAX_COMMENT = 1_000_000  # bytes of a GIF's comments
MAX_SCANS = 100  # of a progressive JPEG, each of which costs a pass over the picture; 10 are usual
MAX_SCANNED = 1_500_000_000  # pixels of all passes of a progressive JPEG
MAX_RUNS = 8_000_000  # pixels of a BMP of run lengths, which are decoded one by one
MAX_TAGS = 4_000  # of all directories of a TIFF or EXIF; 100 are usual
MAX_NUMBERS = 200_000  # in the values of those tags, such as the places of a TIFF's strips
SUB_DIRECTORIES = (0x8769, 0x8825, 0xA005)  # tags: EXIF, GPS, interoperability
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
BYTE_TYPES = (1, 2, 6, 7)  # those whose values are read as one string of bytes
WHOLE_TYPES = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
WIDTH, HEIGHT, SAMPLE_BITS, SAMPLES, ROWS = 256, 257, 258, 277, 278  # tags of a TIFF
TILE_WIDTH, TILE_HEIGHT = 322, 323


class TooComplex(Exception):
    """Raised for a file that would take a decoder too long; the message completes "it has ..."."""


def extra_bytes(data: bytes, size: tuple[int, int]) -> int:
    """Return the bytes that a decoder takes beside the decoded picture, of `size` (width, height).

    data: the whole file; a file of no known format takes 0. Raises TooComplex for a file of too
    many parts or too much metadata. A damaged file is judged as far as it can be read.
    """
    for magic, check in CHECKS:
        if data.startswith(magic) or (magic == b"ftyp" and data[4:8] == magic):
            try:
                return check(data, size[0] * size[1])
            except (struct.error, IndexError, ValueError):
                return 0  # the decoder will say that it is damaged
    return 0


def check_directories(data: bytes) -> dict[int, list[int]]:
    """Check the first directory of tags of a TIFF or EXIF block, and those that it points to.

    data: from the byte order on, or from "Exif" on. Returns {tag: up to eight whole numbers of its
    value} of the first directory. Raises TooComplex for more tags, numbers or bytes than a picture
    needs, and struct.error for a block that is cut short.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("it is no TIFF")
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    pointer, entry, offset = ("Q", "HHQ", 8) if big else ("L", "HHL", 4)
    inline, head = (8, 12) if big else (4, 8)
    (start,) = struct.unpack_from(order + pointer, data, offset)
    found: dict[int, list[int]] = {}
    tags = numbers = nbytes = 0
    pending, first = [start], True
    while pending:
        at = pending.pop()
        try:
            (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        except (struct.error, OverflowError):
            count = 0
        at += 8 if big else 2
        tags += count
        if tags > MAX_TAGS:
            raise TooComplex(f"more than {MAX_TAGS:,} tags of metadata")
        for place in range(at, min(at + count * (head + inline), len(data)), head + inline):
            if place + head + inline > len(data):
                break
            tag, kind, length = struct.unpack_from(order + entry, data, place)
            size = TYPE_BYTES.get(kind, 0) * length
            nbytes += size
            if size and kind not in BYTE_TYPES:
                numbers += length
            if numbers > MAX_NUMBERS or nbytes > 2 * len(data) + 65_536:
                raise TooComplex("more metadata than a picture needs")
            place += head
            if size > inline:
                (place,) = struct.unpack_from(order + pointer, data, place)
            code = WHOLE_TYPES.get(kind)
            if code is None or not length or place + size > len(data):
                continue
            values = list(struct.unpack_from(f"{order}{min(length, 8)}{code}", data, place))
            if first:  # readers differ in which of two equal tags they take
                found[tag] = max(values, found.get(tag, values))
            if tag in SUB_DIRECTORIES and len(pending) < 8:
                pending.append(max(0, values[0]))
        first = False
    return found


def _png(data: bytes, pixels: int) -> int:
    at, parts, others = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IEND":
            break
        parts += 1
        others += kind not in (b"IDAT", b"fdAT", b"fcTL")
        _count(parts, others)
        at += 12 + length
    return 0


def _jpeg(data: bytes, pixels: int) -> int:
    """Walk the segments of a JPEG as far as its first scan; skip what is no marker, as Pillow does.

    One of several scans is held as coefficients until the last of them is read.
    """
    at, parts, exif, held, components, progressive = 2, 0, 0, 0, 0, False
    while at + 4 <= len(data):
        parts += 1
        _count(parts, parts)
        kind = data[at + 1] if data[at] == 0xFF else None
        if kind is None or kind in (0x00, 0xFF) or 0xD0 <= kind <= 0xD8:
            at += 1 if kind in (None, 0xFF) else 2
            continue
        if kind == 0xDA:
            progressive = progressive or data[at + 4] < components
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        exif += kind == 0xE1 and body.startswith(b"Exif\0\0")
        if exif > MAX_EXIF_PARTS:
            raise TooComplex(f"EXIF in more than {MAX_EXIF_PARTS} segments")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            held = max(held, _coefficient_bytes(body))
            components = max(components, body[5])
            progressive = progressive or kind in (0xC2, 0xC6, 0xCA, 0xCE)
        at += 2 + max(length, 2)
    # Compressed data escapes 0xFF, so this counts markers of scans (and rarely a thumbnail's).
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS or (progressive and scans * pixels > MAX_SCANNED):
        most = MAX_SCANS if scans > MAX_SCANS else MAX_SCANNED // max(1, pixels)
        raise TooComplex(f"more than {most} scans")
    return held if progressive else 0


def _coefficient_bytes(body: bytes) -> int:
    """Return the bytes of all coefficients of a JPEG frame, which has two for each sample.

    body: of the frame's segment, from its precision on.
    """
    height, width, count = struct.unpack_from(">HHB", body, 1)
    factors = [divmod(body[7 + 3 * i], 16) for i in range(count)]
    wide, high = (max(1, *(f[i] for f in factors), 1) for i in (0, 1))
    share = sum(h * v for h, v in factors) / (wide * high)
    return int(2 * share * (width + 8 * wide) * (height + 8 * high))


def _gif(data: bytes, pixels: int) -> int:
    """Walk a GIF's blocks up to its second frame, which Pillow looks for."""
    at = 13 + ((3 << ((data[10] & 7) + 1)) if data[10] & 0x80 else 0)
    parts, blocks, comment, frames = 0, 0, 0, 0
    while at < len(data) and frames < 2:
        blocks += 1
        _count(blocks, blocks)
        kind = data[at]
        if kind == 0x3B:
            break
        if kind == 0x21:
            label, at = data[at + 1], at + 2
        elif kind == 0x2C:
            flags, label = data[at + 9], 0
            frames += 1
            at += 11 + ((3 << ((flags & 7) + 1)) if flags & 0x80 else 0)
        else:
            at += 1
            continue
        while at < len(data) and data[at]:
            parts += 1
            comment += data[at] if label == 0xFE else 0
            if parts > 10 * MAX_PARTS:
                raise TooComplex(f"more than {10 * MAX_PARTS:,} parts")
            if comment > MAX_COMMENT:
                raise TooComplex(f"comments of more than {MAX_COMMENT:,} bytes")
            at += 1 + data[at]
        at += 1
    return 0


def _bmp(data: bytes, pixels: int) -> int:
    header, compression = struct.unpack_from("<L", data, 14)[0], 0
    if header >= 40:
        (compression,) = struct.unpack_from("<L", data, 30)
    if compression in (1, 2):
        if pixels > MAX_RUNS:
            raise TooComplex(f"more than {MAX_RUNS:,} pixels in run lengths")
        return 2 * pixels
    return 0


def _tiff(data: bytes, pixels: int) -> int:
    """Return the bytes of a TIFF's largest strip or tile, which is decoded in one piece."""
    tags = check_directories(data)

    def value(tag: int, default: int) -> int:
        return (tags.get(tag) or [default])[0]

    bits = max(tags.get(SAMPLE_BITS) or [8]) * value(SAMPLES, 1)
    wide = value(TILE_WIDTH, value(WIDTH, 0))
    high = value(TILE_HEIGHT, min(value(ROWS, 2**32 - 1), value(HEIGHT, 0)))
    return wide * high * bits // 8


def _webp(data: bytes, pixels: int) -> int:
    """Return the bytes of two canvases of four bytes a pixel, and of the copy that Pillow makes."""
    at, parts, others = 12, 0, 0
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at + 4 : at + 8], "little"), data[at : at + 4]
        parts += 1
        others += kind != b"ANMF"
        _count(parts, others)
        at += 8 + length + length % 2
    return 12 * pixels


def _avif(data: bytes, pixels: int) -> int:
    """Return the bytes of an AVIF's planes, of 2 bytes a sample, and of their copies as RGB.

    The size is the larger of that of the picture and that which its AV1 stream declares: a decoder
    allocates the latter before the two are compared.
    """
    coded = max((w * h for w, h in _av1_sizes(data)), default=0)
    return 12 * max(pixels, coded)


def _count(parts: int, others: int) -> None:
    if parts > MAX_PARTS or others > MAX_METADATA_PARTS:
        most = MAX_PARTS if parts > MAX_PARTS else MAX_METADATA_PARTS
        raise TooComplex(f"more than {most:,} parts")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start of the contents, end) of the boxes in data[start:end]."""
    parts = 0
    while start + 8 <= end:
        size, kind = struct.unpack_from(">L4s", data, start)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, start + 8), 16
        stop = end if size == 0 else start + size
        if stop > end or stop < start + head:
            return
        yield kind, start + head, stop
        start = stop
        parts += 1
        _count(parts, parts)


def _av1_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (width, height) of each AV1 sequence header of an AVIF's pictures and first frames."""
    spans = []
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            spans += _item_spans(data, start + 4, end)
        elif kind == b"moov":
            spans += _frame_spans(data, start, end)
    if len(spans) > MAX_METADATA_PARTS:
        raise TooComplex(f"more than {MAX_METADATA_PARTS:,} parts")
    for start, end in set(spans):
        yield from _sequence_headers(data, start, min(end, len(data)))


def _item_spans(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Return (start, end) in the file of each item of AV1 that a "meta" box lists."""
    boxes = {kind: (low, high) for kind, low, high in _boxes(data, start, end)}
    av1, spans = set(), []
    if b"iinf" in boxes:
        low, high = boxes[b"iinf"]
        for kind, at, _ in _boxes(data, low + (6 if data[low] == 0 else 8), high):
            if kind == b"infe" and data[at] >= 2:
                form = ">H2x4s" if data[at] == 2 else ">L2x4s"
                item, name = struct.unpack_from(form, data, at + 4)
                if name == b"av01":
                    av1.add(item)
    if b"iloc" not in boxes:
        return []
    at, _ = boxes[b"iloc"]
    version = data[at]
    offset_bytes, length_bytes = divmod(data[at + 4], 16)
    base_bytes, index_bytes = divmod(data[at + 5], 16)
    wide = ">L" if version == 2 else ">H"
    (count,) = struct.unpack_from(wide, data, at + 6)
    at += 6 + struct.calcsize(wide)
    inside = boxes.get(b"idat", (0, 0))[0]

    def number(length: int) -> int:
        nonlocal at
        at += length
        return int.from_bytes(data[at - length : at], "big")

    _count(count, count)
    for _ in range(count):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_bytes) + (inside if method == 1 else 0)
        extents = number(2)
        _count(extents, extents)
        for _ in range(extents):
            if version:
                number(index_bytes)
            begin = base + number(offset_bytes)
            length = number(length_bytes)
            if item in av1:
                spans.append((begin, begin + length if length else len(data)))
    return spans


def _frame_spans(data: bytes, start: int, end: int, depth: int = 0) -> list[tuple[int, int]]:
    """Return (start, end) in the file of the first frame of each track of a "moov" box."""
    spans, place, size = [], None, None
    for kind, low, high in _boxes(data, start, end):
        if kind in (b"trak", b"mdia", b"minf", b"stbl") and depth < 4:
            spans += _frame_spans(data, low, high, depth + 1)
        elif kind in (b"stco", b"co64"):
            (place,) = struct.unpack_from(">L" if kind == b"stco" else ">Q", data, low + 8)
        elif kind == b"stsz":
            each, count = struct.unpack_from(">LL", data, low + 4)
            size = each or (struct.unpack_from(">L", data, low + 12)[0] if count else 0)
    if place is not None and size is not None:
        spans.append((place, place + size))
    return spans


def _sequence_headers(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (width, height) of each sequence header among the units of AV1 in data[at:end]."""
    parts = 0
    while at < end:
        head = data[at]
        at += 1 + (head >> 2 & 1)
        length = end - at
        if head & 2:
            length = shift = 0
            while at < end and shift < 56:
                length |= (data[at] & 127) << shift
                at, shift = at + 1, shift + 7
                if not data[at - 1] & 128:
                    break
        if head >> 3 & 15 == 1:
            yield _sequence_size(data[at : at + min(length, 100)])
        at += length
        parts += 1
        _count(parts, parts)


def _sequence_size(body: bytes) -> tuple[int, int]:
    """Return the largest (width, height) of frames that an AV1 sequence header allows."""
    bits, at = int.from_bytes(body, "big"), 8 * len(body)

    def read(count: int) -> int:
        nonlocal at
        at -= count
        if at < 0:
            raise ValueError("it is cut short")
        return bits >> at & (1 << count) - 1

    read(3 + 1)  # profile, still picture
    if read(1):  # the short header of a still picture
        read(5)
    else:
        model_bits, model = 0, 0
        if read(1):  # timing
            read(64)
            if read(1):
                zeros = 0
                while not read(1):
                    zeros += 1
                read(zeros)
            model = read(1)
            if model:
                model_bits = read(5) + 1
                read(32 + 5 + 5)
        delay = read(1)
        for _ in range(read(5) + 1):  # operating points
            read(12)
            if read(5) > 7:
                read(1)
            if model and read(1):
                read(2 * model_bits + 1)
            if delay and read(1):
                read(4)
    wide, high = read(4) + 1, read(4) + 1
    return read(wide) + 1, read(high) + 1


# (first bytes, or "ftyp" for those from the fifth on; the function that walks such a file and
# returns the bytes that its decoder takes beside the picture, which has so many pixels)
CHECKS: tuple[tuple[bytes, Callable[[bytes, int], int]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8", _jpeg),
    (b"GIF8", _gif),
    (b"BM", _bmp),
    (b"II", _tiff),
    (b"MM", _tiff),
    (b"RIFF", _webp),
    (b"ftyp", _avif),
)
