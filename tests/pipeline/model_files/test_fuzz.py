"""Ten thousand damaged safetensors files: each is refused in one sentence, or really is whole.

`damaged(seed, number)` makes any one of them again; the seed is new in every run.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import secrets
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from pipeline.errors import InputError
from pipeline.lora import read_lora
from pipeline.model_files.safetensors_header import SafetensorsHeader, read_header

FILES = 10_000
SECONDS = 2  # longer is a hang
LAYER = "lora_unet_mid_block_attentions_0_proj_in"
NUMBERS = (
    *(0, -1, 1, 3, 4, 8, 16, 2**31, 2**53, 2**60 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1, 2**64),
    *(-(2**63), 10**400, 10**5000, 0.0, 1.5, 4.0, 1e308, True, False, None, "4", "", [], [4], {}),
)
# As text: JSON that Python's reader and others' may take differently.
LITERALS = (
    *("NaN", "Infinity", "-Infinity", "-0", "-0.0", "1e2", "1E400", "1e-400", "0x10", "01", "+4"),
    *(
        "1_0",
        "4.",
        ".5",
        "\u0664",
        "nul",
        "undefined",
        "'a'",
        "[4,]",
        "{,}",
        "/* */4",
        "4 4",
        "--4",
    ),
    *(
        "9" * 4299,
        "9" * 5000,
        "1" + "0" * 30,
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\u0000"',
        '"\\x41"',
    ),
    *('"\x00"', '"\n"', '"\t"', '"\\', "[" * 50, "[" * 2000 + "]" * 2000, '{"a":' * 3000),
)
DTYPES = (
    *("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64"),
    *("f32", "F128", "", "__proto__", "F32\u0000", "\u202eF32", "I" * 10_000, 7, None, ["F32"], {}),
)
NAMES = (
    *(
        "__metadata__",
        "__METADATA__",
        "",
        "\u0000",
        "../../etc/passwd",
        "\x1b[2J",
        "\u202e",
        "\ud800",
    ),
    *("x" * 70_000, "a.b", "\ufeff", "名", LAYER + ".alpha", LAYER + ".hada_w1_a", "\U0001f34e"),
)

Random = random.Random


def whole() -> tuple[dict[str, Any], bytes]:
    """Header and data of a sound file, a LoRA of one layer with an empty tensor beside it."""
    header, at = {"__metadata__": {"format": "pt", "lora_adapter_metadata": "{}"}}, 0
    for name, dtype, shape, size in (
        (f"{LAYER}.lora_down.weight", "F32", [2, 4], 32),
        (f"{LAYER}.lora_up.weight", "F16", [3, 2, 1, 1], 12),
        (f"{LAYER}.alpha", "I64", [], 8),
        ("empty.alpha", "F32", [0, 5], 0),
    ):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header, bytes(at)


def _tensor(rng: Random, header: dict) -> dict:
    """One of the header's entries that is an object."""
    entries = [v for k, v in header.items() if isinstance(v, dict) and k != "__metadata__"]
    return rng.choice(entries) if entries else header


def _put(rng: Random, values: Any, value: Any) -> None:
    """`value` into a place of a list, if it is one: in, on top, or out."""
    if isinstance(values, list):
        place = rng.randrange(len(values) + 1)
        values[place : place + rng.randrange(2)] = [value] * rng.choice((0, 1, 1, 1, 20))


def shape(rng: Random, header: dict) -> None:
    _put(rng, _tensor(rng, header).get("shape"), rng.choice(NUMBERS))


def offsets(rng: Random, header: dict) -> None:
    _put(rng, _tensor(rng, header).get("data_offsets"), rng.choice(NUMBERS))


def moved(rng: Random, header: dict) -> None:
    """Overlaps, holes, swapped ends, ends beyond the file: the spans by themselves well formed."""
    place = _tensor(rng, header).get("data_offsets")
    if isinstance(place, list) and all(type(v) is int for v in place):
        by = rng.choice((-8, -1, 1, 4, 1000, 2**40))
        place[:] = rng.choice(([v + by for v in place], place[::-1], [v * 2 for v in place]))


def grown(rng: Random, header: dict) -> None:
    """A shape and its span that agree, and are too large for any file."""
    rows = rng.choice((2**20, 2**40, 2**57, 2**58, 2**59))
    last = rng.choice((1, 2, 0, 16))
    header["grown"] = {
        "dtype": "F32",
        "shape": [rows, last],
        "data_offsets": [52, 52 + rows * last * 4],
    }


def dtype(rng: Random, header: dict) -> None:
    _tensor(rng, header)["dtype"] = rng.choice(DTYPES)


def field(rng: Random, header: dict) -> None:
    """A field missing, renamed, of another type, or one too many."""
    entry = _tensor(rng, header)
    name = rng.choice(("dtype", "shape", "data_offsets", "strides", "Shape"))
    if rng.random() < 0.5:
        entry.pop(name, None)
    else:
        entry[name] = rng.choice((*NUMBERS, [0, 32], [2, 4], "F32"))


def entry(rng: Random, header: dict) -> None:
    header[rng.choice(NAMES)] = rng.choice(
        (*NUMBERS, *(dict(v) for v in header.values() if isinstance(v, dict)))
    )


def renamed(rng: Random, header: dict) -> None:
    name = rng.choice(list(header))
    header[rng.choice(NAMES)] = header.pop(name)


def dropped(rng: Random, header: dict) -> None:
    del header[rng.choice(list(header))]


def metadata(rng: Random, header: dict) -> None:
    value = rng.choice((*NUMBERS, *NAMES, {rng.choice(NAMES): rng.choice((*NUMBERS, *NAMES))}))
    header["__metadata__"] = rng.choice((value, {"lora_adapter_metadata": value}))


def many(rng: Random, header: dict) -> None:
    count = rng.choice((10, 500))
    header |= {
        f"n{i}": {"dtype": "U8", "shape": [0], "data_offsets": [52, 52]} for i in range(count)
    }


def literal(rng: Random, raw: bytes) -> bytes:
    """A number or a text of the JSON replaced by a literal."""
    places = [*re.finditer(rb'-?\d+|"[^"]*"', raw)]
    if not places:
        return raw
    start, end = rng.choice(places).span()
    return raw[:start] + rng.choice(LITERALS).encode("utf-8", "surrogatepass") + raw[end:]


def cut(rng: Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def doubled(rng: Random, raw: bytes) -> bytes:
    """The header twice, or a part of it, so that names stand in it twice."""
    inner = raw[1:-1]
    piece = rng.choice((inner, inner.split(b',"')[0], inner.rpartition(b',"')[2]))
    return rng.choice((raw + raw, b"{" + inner + b"," + piece + b"}", raw + b"," + raw))


def nested(rng: Random, raw: bytes) -> bytes:
    depth = rng.choice((2, 100, 1000, 100_000))
    inner = rng.choice((b"[", b'{"":')) * depth
    return rng.choice((b'{"a":' + inner, b'{"__metadata__":' + inner, raw[:-1] + b',"z":' + inner))


def padded(rng: Random, raw: bytes) -> bytes:
    filler = rng.choice(
        (b" ", b"\n", b"\0", b"\t", b"\xa0", b"\xef\xbb\xbf", b"}", b"x")
    ) * rng.randrange(1, 9)
    at = rng.choice((0, 1, len(raw) // 2, len(raw)))
    return raw[:at] + filler + raw[at:]


def flipped(rng: Random, raw: bytes) -> bytes:
    """One to eight bytes of any value anywhere."""
    changed = bytearray(raw)
    for _ in range(rng.randrange(1, 9) if raw else 0):
        changed[rng.randrange(len(raw))] = rng.randrange(256)
    return bytes(changed)


def swapped(rng: Random, raw: bytes) -> bytes:
    """A structural character for another."""
    marks = b'{}[]:,"\\'
    places = [i for i, c in enumerate(raw) if c in marks]
    if not places:
        return raw
    at = rng.choice(places)
    return raw[:at] + bytes([rng.choice(marks)]) + raw[at + 1 :]


def length(rng: Random, content: bytes) -> bytes:
    (now,) = struct.unpack("<Q", content[:8].ljust(8, b"\0"))
    near = [now + d for d in (-9, -8, -1, 1, 8, 52)]
    far = [0, 1, 2, len(content), 2**24, 25_000_001, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
    return struct.pack("<Q", rng.choice((*near, *far)) % 2**64) + content[8:]


def bytes_cut(rng: Random, content: bytes) -> bytes:
    return content[
        : rng.choice((0, 1, 7, 8, 9, 10, rng.randrange(len(content) + 1), len(content) - 1))
    ]


def trailing(rng: Random, content: bytes) -> bytes:
    return content + rng.choice((b"\0", b"}", b"PK\x05\x06", bytes(64), content))


def other_format(rng: Random, content: bytes) -> bytes:
    """What people rename to .safetensors, and what would run code if it were unpickled."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    forms = [pickle.dumps(Bomb(), protocol) for protocol in range(6)]
    forms += [packed.getvalue(), b"GGUF\x03\0\0\0", b"\x89HDF\r\n\x1a\n", b"<!DOCTYPE html>", b"{}"]
    return rng.choice(forms) + rng.choice((b"", content))


class Bomb:
    """Unpickling this leaves a file in the folder that the test watches."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


Damage = tuple[Callable, ...]
HEADER: Damage = (
    *(shape, shape, offsets, moved, grown, dtype, field, entry, renamed, dropped, metadata, many),
)
TEXT: Damage = (literal, literal, cut, doubled, nested, padded, flipped, flipped, swapped)
CONTENT: Damage = (length, bytes_cut, trailing, other_format, flipped)


def damaged(seed: int, number: int) -> tuple[bytes, list[str]]:
    """File `number` of `seed`, and what was done to it, which now and then does not matter."""
    rng = random.Random(f"{seed}:{number}")
    header, data = whole()
    done = []

    def some(table: Damage, odds: float) -> list[Callable]:
        chosen = rng.choices(table, k=rng.choice((1, 1, 1, 2, 3))) if rng.random() < odds else []
        done.extend(c.__name__ for c in chosen)
        return chosen

    for change in some(HEADER, 0.6):
        if header:
            change(rng, header)
    raw = _json(header)
    for change in some(TEXT, 0.4 if done else 0.7):
        raw = change(rng, raw)
    content = struct.pack("<Q", len(raw)) + raw + data
    for change in some(CONTENT, 0.2 if done else 1):
        content = change(rng, content)
    return content, done


def _json(header: dict) -> bytes:
    """With 10**5000 written out, which Python does not do unless it is told to."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(6000)
    try:
        return json.dumps(header, separators=(",", ":")).encode()
    finally:
        sys.set_int_max_str_digits(before)


def snapshot(folder: Path) -> list[tuple]:
    """What lies in the folder, and when each file was last written."""
    return sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in os.scandir(folder))


def answer(check: Callable, path: Path) -> Any:
    """What `check` returns, or its sentence as an InputError; twice too slow is a failure."""
    for _ in range(2):
        began = time.perf_counter()
        try:
            result = check(path)
        except InputError as error:
            result = error
        if time.perf_counter() - began < SECONDS:
            return result
    pytest.fail(f"it took more than {SECONDS} seconds")


def run(check: Callable, sound: Callable, path: Path, count: int) -> dict[str, int]:
    """`check` on `count` new damaged files; `sound(path, result)` for those it lets through."""
    seed, passed = secrets.randbelow(2**32), 0
    for number in range(count):
        content, done = damaged(seed, number)
        where = f"damaged({seed}, {number}): {', '.join(done)}"
        path.write_bytes(content)
        before = snapshot(path.parent)
        try:
            result = answer(check, path)
        except BaseException as error:
            raise AssertionError(where) from error
        assert snapshot(path.parent) == before, where
        if isinstance(result, InputError):
            text = str(result)
            assert text.isprintable() and text.endswith((".", ")")) and len(text) < 500, (
                where,
                text,
            )
        else:
            passed += 1
            try:
                sound(path, result)
            except BaseException as error:
                raise AssertionError(where) from error
    return {"passed": passed, "refused": count - passed}


@pytest.fixture
def target(monkeypatch) -> Iterator[Path]:
    """Where the files are written, in memory if that can be, and the working folder."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        monkeypatch.chdir(folder)
        yield Path(folder) / "model.safetensors"
        monkeypatch.undo()


def readable(path: Path, header: SafetensorsHeader) -> None:
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == header.tensors.keys()
        for name, info in header.tensors.items():
            assert file.get_slice(name).get_shape() == info["shape"]


@pytest.mark.slow
def test_ten_thousand_damaged_files(target):
    counts = run(read_header, readable, target, FILES)
    assert min(counts.values()) > FILES // 100, counts  # the damage is neither nothing nor all


def test_a_lora_among_them_is_read_or_refused(target):
    def complete(path: Path, lora) -> None:
        assert all(part.down.shape[0] == part.up.shape[1] for part in lora.parts.values())

    run(read_lora, complete, target, 400)


@pytest.mark.parametrize(
    "start, unit, end",
    [
        *(('{"a":[', unit, "0]}") for unit in ("1,", "1.5,", "{},", "[],", '"",', '{"":0},')),
        *(('{"', unit, '":0}') for unit in ("x", "\\u0000", "\u202e", "{")),
        ('{"__metadata__":{"a":"', "\\n", '"},"b":1}'),
    ],
)
def test_the_largest_headers_are_no_hang(target, start, unit, end):
    """As many small things as 25 MB hold, or names as long: Python would take its time."""
    raw = (start + unit * (24_900_000 // len(unit.encode())) + end).encode()
    target.write_bytes(struct.pack("<Q", len(raw)) + raw)
    assert isinstance(answer(read_header, target), InputError)


@pytest.mark.parametrize(
    "old, new",
    [(b'"pt"', b'"\\ud800"'), (b'"pt"', b'"\\udc00\\ud800"'), (b"[0, 32]", b"[-0, 32]")],
)
def test_json_that_only_python_reads(target, old, new):
    """Found by the files above: what safetensors' own reader refuses."""
    header, data = whole()
    raw = json.dumps(header).encode()
    assert old in raw
    raw = raw.replace(old, new)
    target.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    with pytest.raises(InputError, match="is damaged"):
        read_header(target)


def test_the_undamaged_file_is_sound(target):
    header, data = whole()
    raw = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    readable(target, read_header(target))
