"""A damaged header ends in one sentence; a sound one is read."""

from __future__ import annotations

import json
import random
import struct
import time
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.model_files.safetensors_header import read_header

UNET = "unet/diffusion_pytorch_model.safetensors"


def sentence(check, *arguments) -> str:
    """The InputError's text, held to be one printable line without a chain of other errors."""
    with pytest.raises(InputError) as caught:
        check(*arguments)
    text = str(caught.value)
    assert text.isprintable() and text.rstrip().endswith((".", ")")) and len(text) < 500, text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text


def write(path: Path, header, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def tensor(start: int, stop: int, shape=None, dtype="F32") -> dict:
    shape = [(stop - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


HEADERS = [
    ({"a": tensor(0, 8)}, 4, "is truncated"),
    ({"a": tensor(0, 4)}, 8, "4 bytes follow its last tensor"),
    ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12, "leaves a hole"),
    ({"a": tensor(4, 8)}, 8, "leaves a hole"),
    ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12, "overlaps"),
    ({"a": tensor(0, 4), "b": tensor(0, 4)}, 4, "overlaps"),
    ({"a": tensor(0, 4, [2])}, 4, "its shape needs 8"),
    ({"a": tensor(0, 4, [-1, -1])}, 4, "has the shape"),
    ({"a": tensor(0, 4, [2**40, 2**40, 0])}, 4, "has the shape"),
    ({"a": tensor(0, 4, [True])}, 4, "has the shape"),
    ({"a": tensor(0, 4, [1.0])}, 4, "has the shape"),
    ({"a": tensor(0, 4, [1] * 99)}, 4, "has the shape"),
    ({"a": tensor(0, 4, "1")}, 4, "has the shape"),
    ({"a": tensor(4, 0, [1])}, 4, "needs 4"),
    ({"a": {**tensor(0, 4), "data_offsets": [0]}}, 4, "has the offsets"),
    ({"a": {**tensor(0, 4), "data_offsets": [0, "4"]}}, 4, "has the offsets"),
    ({"a": tensor(0, 4, dtype="F99")}, 4, "unknown type F99"),
    ({"a": tensor(0, 4, dtype=["F32"])}, 4, "unknown type"),
    ({"a": {"dtype": "F32"}}, 4, "not fully described"),
    ({"a": [1]}, 4, "not fully described"),
    ({"__metadata__": {"a": 1}}, 0, "must map text to text"),
    (b'{"a": 1', 0, "is damaged"),
    (b'{"a": {}, "a": {}}', 0, "twice"),
    (b'{"a": {"dtype": "F32", "dtype": "F32"}}', 0, "twice"),
    (b'{"\\ud800": 1}', 0, "not UTF-8"),
    (b'{"a":' * 100_000, 0, "nested too deeply"),
    (b'{"a": Infinity}', 0, "no number"),
    (b"[]", 0, "no safetensors file"),
    ({str(i): tensor(0, 0) for i in range(100_001)}, 0, "100,001 tensors"),
]


@pytest.mark.parametrize("header, size, words", HEADERS, ids=[str(i) for i in range(len(HEADERS))])
def test_bad_header_gets_a_sentence(tmp_path, header, size, words):
    path = write(tmp_path / "x.safetensors", header, b"\0" * size)
    assert words in sentence(read_header, path)


def test_huge_header_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 90_000_000) + b"{")
        file.truncate(100_000_000)  # a sparse file
    assert "at most 25,000,000" in sentence(read_header, path)
    assert "is no file" in sentence(read_header, tmp_path)
    assert "cannot be read" in sentence(read_header, tmp_path / "gone.safetensors")


def test_header_of_a_good_file(tiny_model):
    header = read_header(tiny_model / UNET).tensors
    assert header["conv_in.weight"]["shape"] == [16, 4, 3, 3]
    assert header["conv_in.weight"]["dtype"] == "F32"


def test_mutated_files_raise_nothing_else(tmp_path):
    """Whatever is done to a file: it passes and safetensors can open it, or it gets a sentence."""
    from safetensors import safe_open

    chance = random.Random(0)
    good = {f"layer.{i}.weight": tensor(i * 16, i * 16 + 16, [2, 2]) for i in range(6)}
    good["__metadata__"] = {"format": "pt"}
    header = json.dumps(good).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(96)
    odd = [b"-1", b"1e999", b"null", b"[]", b"{}", b'"', b"\xff", b"18446744073709551616", b"\\u"]
    path = tmp_path / "x.safetensors"
    passed = 0
    began = time.perf_counter()
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(chance.choice((0, 1, 1, 2, 5))):
            at = chance.randrange(len(data) if chance.random() < 0.8 else min(9, len(data)))
            kind = chance.randrange(4)
            if kind == 0:
                data[at] = chance.randrange(256)
            elif kind == 1:
                data[at : at + chance.randrange(1, 12)] = chance.choice(odd)
            elif kind == 2:
                del data[at:]
                data += bytes(chance.randrange(1, 40))
            else:
                data[at] = chance.choice(b"0123456789[]{},:")
        path.write_bytes(data)
        try:
            read_header(path)
        except InputError as error:
            assert str(error).isprintable()
            continue
        passed += 1
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_tensor(name)
    assert 60 < passed < 500
    assert time.perf_counter() - began < 20
