"""Files that cost a decoder far more than their pixels are told from those that do not."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, features

from pipeline.errors import InputError
from pipeline.images import open as pictures
from pipeline.images.open import decode
from pipeline.images.structure import (
    MAX_NUMBERS,
    TooComplex,
    check_directories,
    extra_bytes,
)


def coded(image: Image.Image, kind: str, **flags) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **flags)
    return buffer.getvalue()


def plain(mode="RGB", size=(64, 48)) -> Image.Image:
    return Image.new(mode, size, 7)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(16 * 49))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def directory(entries, data=b"", order="<") -> bytes:
    """A block of EXIF whose entries are (tag, type, count, value or offset)."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(struct.pack(f"{order}HHLL", *entry) for entry in entries)
    return head + struct.pack(f"{order}LH", 8, len(entries)) + body + bytes(4) + data


def tiff(*entries, blob=b"", **flags) -> bytes:
    """A TIFF of 64 x 48 pixels with more tags; `blob` begins at its end."""
    data = coded(plain(), "TIFF", **flags)
    (start,) = struct.unpack_from("<L", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    rows = [struct.unpack_from("<HHLL", data, start + 2 + 12 * i) for i in range(count)]
    new = {row[0]: row for row in (*rows, *entries)}
    data += blob + bytes(len(blob) % 2)
    table = b"".join(struct.pack("<HHLL", *new[tag]) for tag in sorted(new))
    return data[:4] + struct.pack("<L", len(data)) + data[8:] + struct.pack("<H", len(new)) + table


def segments(count: int, body: bytes, kind=0xE1) -> bytes:
    data = coded(plain(), "JPEG")
    segment = bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body
    return data[:2] + segment * count + data[2:]


def gif(blocks: bytes) -> bytes:
    data = coded(plain("P"), "GIF")
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 128 else 0)
    return data[:at] + blocks + data[at:]


ALIASED = [(40_000 + i, 7, 900_000, 8) for i in range(9)]
COSTLY = {
    "TIFF, one value under many tags": lambda: tiff(*ALIASED, blob=bytes(1_000_000)),
    "TIFF, numbers": lambda: tiff((40_000, 3, MAX_NUMBERS + 1, 8), blob=bytes(2 * MAX_NUMBERS)),
    "TIFF, EXIF inside": lambda: tiff(
        (0x8769, 4, 1, len(coded(plain(), "TIFF"))), blob=b"\xff\xff" + b"\1" * 900_000
    ),
    "JPEG, EXIF in pieces": lambda: segments(20, b"Exif\0\0" + bytes(60)),
    "JPEG, comments": lambda: segments(6_000, b"c", 0xFE),
    "JPEG, padding": lambda: segments(1, b"")[:2] + b"\xff" * 6_000 + segments(1, b"")[2:],
    "JPEG, junk": lambda: segments(1, b"")[:2] + b"a" * 6_000 + segments(1, b"")[2:],
    "GIF, one comment": lambda: gif(b"!\xfe" + (b"\xff" + b"c" * 255) * 5_000 + b"\0"),
    "GIF, extensions": lambda: gif(b"!\xf9\x01c\0" * 6_000),
    "GIF, junk": lambda: gif(b"\1" * 6_000),
    "GIF, blocks of one byte": lambda: gif(b"")[:-2] + b"\1a" * 1_100_000 + b"\0;",
    "PNG, texts": lambda: png(*[(b"tEXt", b"a\0b")] * 6_000),
    "BMP, run lengths": lambda: (
        b"BM" + struct.pack("<LHHLLllHHLLllLL", 0, 0, 0, 54, 40, 4000, 4000, 1, 8, 1, *[0] * 5)
    ),
    "WebP, chunks": lambda: coded(plain(), "WEBP") + b"JUNK\0\0\0\0" * 6_000,
}


@pytest.mark.parametrize("name", COSTLY)
def test_costly_files_are_refused(name):
    with pytest.raises(TooComplex):
        extra_bytes(COSTLY[name](), (4000, 4000))
    if name.startswith("BMP"):
        return  # Pillow wants a palette first
    with pytest.raises(InputError, match=r"^The picture has .* save it anew\.$"):
        decode(COSTLY[name]())


def test_exif_of_a_picture_is_passed_over_where_it_is_costly():
    entries = [(1000 + i, 2, 500_000, 8) for i in range(2000)]
    block = directory(entries, b"a" * 500_000)
    with pytest.raises(TooComplex):
        check_directories(block)
    assert decode(png((b"eXIf", block))).image.size == (16, 16)
    turned = [*entries[:3], (0x0112, 3, 1, 6)]
    assert decode(png((b"eXIf", directory(turned)))).image.size == (16, 16)


def test_directories_of_both_orders_and_of_big_tiff():
    assert check_directories(directory([(274, 3, 1, 6), (256, 4, 1, 99)])) == {274: [6], 256: [99]}
    block = b"Exif\0\0" + directory([(256, 4, 1, 99)], order=">")
    assert check_directories(block) == {256: [99]}
    big = b"II+\0\x08\0\0\0" + struct.pack("<QQHHQQ", 16, 1, 256, 16, 1, 77)
    assert check_directories(big) == {256: [77]}
    with pytest.raises(ValueError, match="no TIFF"):
        check_directories(b"junk")
    assert check_directories(directory([(256, 4, 1, 99)])[:-9]) == {}


def test_usual_files_pass():
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    kinds = {"PNG": 0, "BMP": 0, "GIF": 0, "JPEG": 0, "TIFF": 300 * 300 * 3, "WEBP": 12 * 300 * 300}
    for kind, extra in kinds.items():
        flags = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
        assert 0 <= extra_bytes(coded(noise, kind, **flags), (300, 300)) <= extra
    frames = coded(noise, "GIF", save_all=True, append_images=[noise.rotate(90)] * 3)
    assert extra_bytes(frames, (300, 300)) == 0


@pytest.mark.parametrize(
    ("flags", "samples"),
    [
        ({}, 0),
        ({"progressive": True, "subsampling": 0}, 3),
        ({"progressive": True, "subsampling": 2}, 1.5),
    ],
)
def test_a_progressive_jpeg_is_held_as_coefficients(flags, samples):
    size = 640, 480
    needed = extra_bytes(coded(plain(size=size), "JPEG", **flags), size)
    assert needed == pytest.approx(2 * samples * 640 * 480, rel=0.1)


def test_strips_and_tiles_of_a_tiff_are_counted():
    TiffImagePlugin.WRITE_LIBTIFF = False
    whole = coded(plain("RGBA", (200, 100)), "TIFF", tiffinfo={278: 100})
    assert extra_bytes(whole, (200, 100)) == 200 * 100 * 4
    tiled = tiff((322, 4, 1, 30_000), (323, 4, 1, 30_000))
    assert extra_bytes(tiled, (64, 48)) == 30_000 * 30_000 * 3
    with pytest.raises(InputError, match="2,700 MB to open"):
        decode(tiled)


@pytest.mark.skipif(not features.check("avif"), reason="no AVIF")
@pytest.mark.parametrize("frames", [1, 2])
def test_an_avif_is_as_large_as_its_stream_says(frames):
    image = plain(size=(2000, 1000))
    more = {"save_all": True, "append_images": [image.rotate(180)]} if frames == 2 else {}
    data = bytearray(coded(image, "AVIF", speed=10, **more))
    assert extra_bytes(bytes(data), image.size) == 12 * 2000 * 1000
    at, said = data.find(b"ispe"), 0
    while at >= 0:
        struct.pack_into(">LL", data, at + 8, 64, 64)
        at, said = data.find(b"ispe", at + 4), said + 1
    assert said
    assert extra_bytes(bytes(data), (64, 64)) == 12 * 2000 * 1000


def test_what_opening_takes_is_counted_before_decoding(monkeypatch):
    seen = []

    class Gate:
        def reserve(self, nbytes):
            seen.append(nbytes)
            raise InputError("Full.")

    monkeypatch.setattr(pictures, "GATE", Gate())
    for mode, kind in (("RGB", "PNG"), ("L", "GIF"), ("RGB", "WEBP")):
        with pytest.raises(InputError, match="Full"):
            decode(coded(Image.new(mode, (500, 400)), kind))
    assert seen[:2] == [8 * 500 * 400] * 2 and seen[2] >= 16 * 500 * 400
