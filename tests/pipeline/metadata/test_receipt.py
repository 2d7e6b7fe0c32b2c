"""Receipts on a tiny random model: what they hold, and files that hold none or a damaged one."""

import struct
import zlib

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline import InputError
from pipeline.metadata import infotext, receipt
from pipeline.metadata.fingerprint import fingerprint


def test_a_receipt_says_how_its_picture_came_about(models, drawn, signed_png, request_options):
    result, steps = drawn
    found = receipt.read(signed_png)
    assert found.intact and found.task == "generate" and not found.branches and not found.inputs
    assert not found.words
    assert found.options.items() >= (request_options | {"width": 64, "height": 64}).items()
    assert found.model == {"name": "tiny", "hash": models.hash, "vae": None}
    assert set(found.weights) == {"unet", "vae", "text_encoder"}
    assert found.weights["unet"].startswith(models.hash)
    assert found.ran.items() >= {"device": "cpu", "dtype": "float32", "attention": "sdpa"}.items()
    assert found.ran["threads"] == str(torch.get_num_threads())
    assert found.versions["torch"] == torch.__version__
    assert found.pixels == receipt.pixels_digest(result.images[0])
    latents = [step.latents for step in steps] + result.latents
    assert len(found.steps) == request_options["steps"] + 1
    for print_, true in zip(found.fingerprints, latents, strict=True):
        assert print_.digest == fingerprint(true.clone()).digest
    # A changed bit changes the hash; the text beside is as it always was.
    other = latents[2].clone()
    other.view(torch.int32).view(-1)[7] ^= 1
    assert fingerprint(other).digest != found.fingerprints[2].digest
    assert infotext.read(signed_png) == result.parameters[0]


@pytest.mark.parametrize("name", [n for n in receipt.Receipt.model_fields if n != "digest"])
def test_a_change_of_any_field_is_seen(signed_png, name):
    found = receipt.read(signed_png)
    value = getattr(found, name)
    others = {
        bool: lambda: not value,
        int: lambda: value + 1,
        str: lambda: value[::-1],
        dict: lambda: value | {"more": "0"},
        list: lambda: [*value, value[0] if value else {"at": 1, "cfg": 3.0}],
    }
    changed = found.model_copy(update={name: others[type(value)]()})
    assert found.intact and getattr(changed, name) != value and not changed.intact


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def with_receipt(path, body: bytes):
    """A PNG whose receipt is any bytes, compressed."""
    plain = path.with_name("plain.png")
    Image.new("RGB", (64, 64)).save(plain)
    data = plain.read_bytes()
    plain.write_bytes(data[:33] + chunk(b"zTXt", b"glassbox\0\0" + body) + data[33:])
    return plain


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "damaged: it is no JSON"),
        ("{", "damaged: it is no JSON"),
        ("[" * 5000, "damaged: it is no JSON"),
        ("[1]", "damaged: it does not say its version"),
        ('{"receipt": true}', "damaged: it does not say its version"),
        ('{"receipt": NaN}', "damaged: it is no JSON"),
        ('{"receipt": 2, "new": {}}', "written by a newer version of Glassbox"),
        (f'{{"receipt": {"9" * 4000}}}', "written by a newer version of Glassbox"),
        ('{"receipt": 1}', "damaged: task is not as it should be"),
    ],
)
def test_damaged_and_newer_receipts(signed_png, text, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        receipt.read(with_receipt(signed_png, zlib.compress(text.encode())))
    assert len(str(caught.value)) < 300


def test_a_receipt_is_unpacked_no_further_than_its_limit(signed_png):
    with pytest.raises(InputError, match="more than 1,000,000 bytes"):
        receipt.read(with_receipt(signed_png, zlib.compress(b"{" * 50_000_000)))
    with pytest.raises(InputError, match="damaged"):
        receipt.read(with_receipt(signed_png, b"no zlib"))


def test_foreign_pictures_get_a_clear_answer(tmp_path, drawn):
    result, _ = drawn
    image = result.images[0]
    for name, sentence in (("a.jpg", "only PNG files carry one"), ("a.webp", "only PNG files")):
        (saved,) = result.save(tmp_path / name)
        with pytest.raises(InputError, match=sentence):
            receipt.read(saved)
    chunks = PngInfo()
    chunks.add_text("parameters", result.parameters[0])
    image.save(tmp_path / "a1111.png", pnginfo=chunks)
    with pytest.raises(InputError, match="a parameters text and no receipt"):
        receipt.read(tmp_path / "a1111.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    with pytest.raises(InputError, match="no receipt, and no parameters text"):
        receipt.read(tmp_path / "bare.png")
    (tmp_path / "x.png").write_text("x")
    with pytest.raises(InputError, match="no PNG, JPEG or WebP"):
        receipt.read(tmp_path / "x.png")
