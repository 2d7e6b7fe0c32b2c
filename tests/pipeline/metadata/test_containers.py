"""The text in the containers: where it may stand, in which code, and files that mean harm."""

import io
import struct
import zlib

import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.metadata import containers
from pipeline.metadata.infotext import read

TEXT = "蓝色背景上的 cat 🍎\nSteps: 20, Sampler: Euler a, Seed: 42"
PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(kind + body)
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", crc)


def png(*chunks: bytes, width=20_000, height=20_000) -> bytes:
    """A PNG that claims a large picture and has no pixels."""
    head = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG + head + b"".join(chunks) + chunk(b"IEND", b"")


def exif(comment: bytes, order=">", kind=7, inside=True) -> bytes:
    mark = b"MM\0*" if order == ">" else b"II*\0"
    one = struct.pack(f"{order}HHHLLL", 1, 0x8769, 4, 1, 26, 0) if inside else b""
    entry = struct.pack(f"{order}HHHLLL", 1, 0x9286, kind, len(comment), 26 + len(one), 0)
    return mark + struct.pack(f"{order}L", 8) + one + entry + comment


def jpeg(block: bytes) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block
    return out.getvalue()[:2] + segment + out.getvalue()[2:]


def webp(*blocks: bytes, before: bytes = b"") -> bytes:
    """A WebP of EXIF blocks; `before` is the content of a chunk of pixels before them."""
    chunks = [*([(b"VP8 ", before)] if before else []), *((b"EXIF", block) for block in blocks)]
    body = b"".join(
        kind + struct.pack("<L", len(block)) + block + b"\0" * (len(block) % 2)
        for kind, block in chunks
    )
    return b"RIFF" + struct.pack("<L", len(body) + 4) + b"WEBP" + body


def itxt(text: str, packed=False) -> bytes:
    body = zlib.compress(text.encode()) if packed else text.encode()
    return chunk(b"iTXt", b"parameters\0" + bytes([packed, 0]) + b"zh\0" + "参数\0".encode() + body)


LATIN = "a café\nSteps: 20, Sampler: Euler a, Seed: 42"
PLACES = {
    "tEXt": (png(chunk(b"tEXt", b"parameters\0" + LATIN.encode("latin-1"))), LATIN),
    "zTXt": (
        png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(LATIN.encode("latin-1")))),
        LATIN,
    ),
    "iTXt": (png(itxt(TEXT)), TEXT),
    "iTXt, packed": (png(itxt(TEXT, packed=True)), TEXT),
    "behind the pixels": (png(chunk(b"IDAT", b"x"), itxt(TEXT)), TEXT),
    "other texts first": (png(chunk(b"tEXt", b"Software\0x"), itxt(TEXT)), TEXT),
    "eXIf": (png(chunk(b"eXIf", exif(b"UNICODE\0" + TEXT.encode("utf-16-be")))), TEXT),
    "the chunk before the EXIF": (
        png(chunk(b"eXIf", exif(b"ASCII\0\0\0Steps: 1, Seed: 2")), itxt(TEXT)),
        TEXT,
    ),
    "JPEG": (jpeg(exif(b"UNICODE\0" + TEXT.encode("utf-16-be"))), TEXT),
    "WebP": (webp(exif(b"UNICODE\0" + TEXT.encode("utf-16-be"))), TEXT),
    "WebP, odd length": (webp(exif(b"ASCII\0\0\0Steps: 1, Seed: 22")), "Steps: 1, Seed: 22"),
    "WebP, behind an odd length": (webp(b"odd", exif(b"ASCII\0\0\0Steps: 1")), "Steps: 1"),
    "WebP, behind odd pixels": (
        webp(exif(b"ASCII\0\0\0Steps: 1"), before=b"pixels of odd"),
        "Steps: 1",
    ),
    "WebP, behind even pixels": (
        webp(exif(b"ASCII\0\0\0Steps: 1"), before=b"pixels of even"),
        "Steps: 1",
    ),
    "WebP with Exif's own mark": (webp(b"Exif\0\0" + exif(b"ASCII\0\0\0Steps: 1")), "Steps: 1"),
}
for mark in "<>":
    for code in ("utf-16-le", "utf-16-be", "utf-8"):
        raw = b"UNICODE\0" + TEXT.encode(code)
        PLACES[f"UNICODE in {code}, numbers {mark}"] = (jpeg(exif(raw, mark)), TEXT)
PLACES |= {
    "with a byte order mark": (jpeg(exif(b"UNICODE\0" + TEXT.encode("utf-16"))), TEXT),
    "short": (jpeg(exif(b"UNICODE\0" + "a cat".encode("utf-16-le"))), "a cat"),
    "ASCII": (jpeg(exif(b"ASCII\0\0\0" + LATIN.encode())), LATIN),
    "no code": (jpeg(exif(bytes(8) + TEXT.encode())), TEXT),
    "no code at all": (jpeg(exif(TEXT.encode())), TEXT),
    "in the first directory": (jpeg(exif(b"ASCII\0\0\0" + LATIN.encode(), inside=False)), LATIN),
    "as a string": (jpeg(exif(b"ASCII\0\0\0" + LATIN.encode(), kind=2)), LATIN),
}


@pytest.mark.parametrize("name", list(PLACES))
def test_text_is_found_wherever_it_stands(tmp_path, name):
    body, text = PLACES[name]
    (tmp_path / "a").write_bytes(body)
    assert read(tmp_path / "a") == text


def test_control_characters_are_left_out(tmp_path):
    (tmp_path / "a.png").write_bytes(png(itxt("\ufeffa\x1b[31m\r\n\tcat\x07\x85\x7f\0")))
    assert read(tmp_path / "a.png") == "a[31m\n\tcat"


BOMB = zlib.compress(bytes(50_000_000))
GARBAGE = exif(b"UNICODE\0ab")
BAD = {
    "zTXt bomb": (png(chunk(b"zTXt", b"parameters\0\0" + BOMB)), "more than 1,000,000 bytes"),
    "iTXt bomb": (
        png(chunk(b"iTXt", b"parameters\0\1\0\0\0" + BOMB)),
        "more than 1,000,000 bytes",
    ),
    "a megabyte": (png(chunk(b"tEXt", b"parameters\0" + b"x" * 1_000_001)), "1,000,000 bytes"),
    "a megabyte of EXIF": (webp(exif(b"ASCII\0\0\0" + b"x" * 1_000_000)), "1,000,000 bytes"),
    "endless EXIF": (png(chunk(b"eXIf", exif(b"") + bytes(4_000_000))), "1,000,000 bytes"),
    "a chunk of 4 GB": (PNG + b"\xff\xff\xff\xfftEXtparameters\0x", "more than 1,000,000 bytes"),
    "a bomb elsewhere": (png(chunk(b"zTXt", b"Comment\0\0" + BOMB)), "no parameters text"),
    "zTXt garbage": (png(chunk(b"zTXt", b"parameters\0\0garbage")), "no parameters text"),
    "no keyword": (png(chunk(b"tEXt", b"parameters")), "no parameters text"),
    "text in a PNG": (b"no picture", "no PNG, JPEG or WebP"),
    "nothing": (b"", "no PNG, JPEG or WebP"),
    "a GIF": (b"GIF89a" + bytes(20), "no PNG, JPEG or WebP"),
    "a WAV": (b"RIFF\0\0\0\0WAVE" + bytes(20), "no PNG, JPEG or WebP"),
    "a PNG's mark": (PNG, "ends too early"),
    "a cut chunk": (png(itxt(TEXT))[:-100], "ends too early"),
    "a cut JPEG": (jpeg(GARBAGE)[:25], "ends too early"),
    "a JPEG without markers": (b"\xff\xd8\xff\xe0\0\2abcd", "no marker"),
    "a JPEG segment of nothing": (b"\xff\xd8\xff\xe1\0\0", "no length"),
    "a cut WebP": (webp(GARBAGE)[:-3], "ends too early"),
    "EXIF of nothing": (jpeg(b""), "no parameters text"),
    "EXIF garbage": (jpeg(b"MM\0*" + b"\xff" * 50), "no parameters text"),
    "EXIF in a circle": (jpeg(exif(b"")[:18] + b"\0\0\0\x08" + bytes(9)), "no parameters text"),
    "EXIF beyond its end": (jpeg(GARBAGE.replace(b"\0\0\0\x2c", b"\x7f\0\0\0")), "no parameters"),
    "an empty comment": (jpeg(exif(b"ASCII\0\0\0" + bytes(40))), "no parameters text"),
    "ComfyUI": (png(chunk(b"tEXt", b'prompt\0{"3": {}}')), "ComfyUI's own form"),
    "ComfyUI's graph": (png(chunk(b"tEXt", b'workflow\0{"3": {}}')), "ComfyUI's own form"),
    "NovelAI": (png(chunk(b"tEXt", b"Software\0NovelAI")), "NovelAI's own form"),
    "another program": (png(chunk(b"tEXt", b"Software\0GIMP")), "no parameters text"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path, name):
    body, sentence = BAD[name]
    (tmp_path / "a.png").write_bytes(body)
    with pytest.raises(InputError, match=sentence) as error:
        read(tmp_path / "a.png")
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_what_is_no_file(tmp_path):
    for path, sentence in (
        (tmp_path, "is no file"),
        (tmp_path / "none.png", "There is no file"),
        ("a\0.png", "NUL"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
    ):
        with pytest.raises(InputError, match=sentence):
            read(path)


def test_a_file_of_countless_parts_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MAX_PARTS", 3)
    (tmp_path / "a.png").write_bytes(png(*[chunk(b"IDAT", b"")] * 3, itxt(TEXT)))
    with pytest.raises(InputError, match="more than 3 parts"):
        read(tmp_path / "a.png")


def test_every_cut_and_every_flipped_byte_is_a_text_or_a_sentence(tmp_path):
    path = tmp_path / "a"
    for whole in (png(itxt("Steps: 1")), jpeg(GARBAGE)[:200], webp(GARBAGE)):
        spoiled = [whole[:i] for i in range(len(whole))]
        spoiled += [whole[:i] + b"\xff" + whole[i + 1 :] for i in range(len(whole))]
        for body in spoiled:
            path.write_bytes(body)
            try:
                assert read(path)
            except InputError as error:
                assert str(error)


def test_pillow_finds_what_we_write(tmp_path):
    picture = Image.new("RGB", (8, 8))
    picture.save(tmp_path / "a.webp", exif=containers.encode_exif(TEXT))
    with Image.open(tmp_path / "a.webp") as opened:
        raw = opened.getexif().get_ifd(0x8769)[0x9286]
    assert raw == b"UNICODE\0" + TEXT.encode("utf-16-be")
