"""Read and check the header of a .safetensors file; no tensor is read, nothing is unpickled.

The check is stricter than the format (https://huggingface.co/docs/safetensors): no duplicate
names, no unknown fields, at most 25 MB of header.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ..errors import InputError, reason_of, short
from .json_file import are_sizes, parse_json

MAX_HEADER = 25_000_000  # bytes; the format allows 100 MB, an SDXL checkpoint has 0.4 MB
MAX_TENSORS = 100_000
MAX_PARTS = {  # from a character to what it counts in a header, and the most that are allowed
    b"{": ("objects", 2 * MAX_TENSORS),
    b"[": ("lists", 4 * MAX_TENSORS),
    b",": ("values", 20 * MAX_TENSORS),
}
ITEM_BYTES = {  # from dtype to bytes of one number
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
MAGIC = {  # first bytes of other formats that people rename to .safetensors, and what they are
    b"PK\x03\x04": "a zip archive of pickles, as torch.save writes it, and is not loaded",
    b"\x80\x02": "a pickle, which is not loaded",
    b"\x80\x03": "a pickle, which is not loaded",
    b"\x80\x04": "a pickle, which is not loaded",
    b"\x80\x05": "a pickle, which is not loaded",
    b"version https://git-lfs": "a Git LFS pointer, not the weights (git lfs pull fetches them)",
    b"GGUF": "a GGUF file, which this version does not read",
    b"\x89HDF": "an HDF5 file, which this version does not read",
    b"<": "a web page, not weights",
}


@dataclass(frozen=True)
class SafetensorsHeader:
    """The checked header of a .safetensors file.

    tensors: from tensor name to {"dtype": "F16", "shape": [...], "data_offsets": [start, end]}.
    metadata: the header's "__metadata__", {} where it has none.
    """

    tensors: dict[str, dict[str, Any]]
    metadata: dict[str, str]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return a dict from tensor name to shape."""
        return {name: tuple(info["shape"]) for name, info in self.tensors.items()}


def read_header(path: str | os.PathLike) -> SafetensorsHeader:
    """Return the checked header of a .safetensors file.

    Raises InputError where the file cannot be read, is truncated, damaged or of another format.
    """
    file, header = open_safetensors(Path(path))
    file.close()
    return header


def open_safetensors(path: Path) -> tuple[BinaryIO, SafetensorsHeader]:
    """Open a .safetensors file; return the open file, which the caller closes, and its header.

    Raises InputError where the file cannot be read, is truncated, damaged or of another format.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{short(path)} is no file.")
        file = open(path, "rb")  # noqa: SIM115 (the caller goes on reading)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{short(path)} cannot be read: {reason_of(error)}.") from None
    try:
        return file, _parse_header(file, path)
    except BaseException:
        file.close()
        raise


def _parse_header(file: BinaryIO, path: Path) -> SafetensorsHeader:
    """Read the header of an open .safetensors file and check it against the file's size.

    file: at its beginning. path: only named in errors. Raises InputError for a truncated or damaged
    file and for one of another format.
    """
    shown = short(path)
    try:
        size = os.fstat(file.fileno()).st_size
        head = file.read(32)
        if head[8:9] != b"{":
            _refuse_other_format(shown, head)
        (length,) = struct.unpack("<Q", head[:8])
        if length > size - 8:
            raise InputError(
                f"{shown} is truncated: a header of {length:,} bytes in a file of {size:,}."
            )
        if length > MAX_HEADER:
            raise InputError(
                f"{shown} has a header of {length:,} bytes; at most {MAX_HEADER:,} are read."
            )
        file.seek(8)
        raw = file.read(length)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shown} cannot be read: {reason_of(error)}.") from None
    for mark, (parts, most) in MAX_PARTS.items():  # before parsing, which costs far more memory
        if raw.count(mark) > most:
            raise InputError(
                f"The header of {shown} is damaged: it holds {raw.count(mark):,} {parts}, more than"
                f" {MAX_TENSORS:,} tensors need."
            )
    header = parse_json(raw, shown, "The header of ")
    if not isinstance(header, dict):
        raise InputError(f"The header of {shown} is damaged: it must be an object.")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError(
            f"The header of {shown} is damaged: its __metadata__ must map text to text."
        )
    if len(header) > MAX_TENSORS:
        raise InputError(f"{shown} names {len(header):,} tensors; {MAX_TENSORS:,} are allowed.")
    _check_layout(header, size - 8 - length, shown)
    return SafetensorsHeader(header, metadata)


def _check_layout(header: dict, size: int, shown: str) -> None:
    """Raise InputError where the tensors of a parsed header do not exactly fill the file.

    Each tensor's bytes must fit its dtype and shape, and together they must cover the `size` bytes
    after the header without gap or overlap. shown: the file's name, for the message.
    """
    spans = []
    for name, info in header.items():
        if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
            raise InputError(f"{shown} is damaged: tensor {short(name)} is not fully described.")
        dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise InputError(f"{shown}: tensor {short(name)} has the unknown type {short(dtype)}.")
        if not are_sizes(shape) or len(shape) > 16 or math.prod(d or 1 for d in shape) >= 2**60:
            raise InputError(f"{shown}: tensor {short(name)} has the shape {short(shape)}.")
        if not are_sizes(offsets) or len(offsets) != 2:
            raise InputError(f"{shown}: tensor {short(name)} has the offsets {short(offsets)}.")
        if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
            raise InputError(
                f"{shown} is damaged: tensor {short(name)} has {offsets[1] - offsets[0]:,} bytes,"
                f" its shape needs {math.prod(shape) * ITEM_BYTES[dtype]:,}."
            )
        spans.append((*offsets, name))
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            fault = "overlaps the one before it" if start < end else "leaves a hole before it"
            raise InputError(f"{shown} is damaged: tensor {short(name)} {fault}.")
        end = stop
    if end > size:
        raise InputError(
            f"{shown} is truncated: it needs {end:,} bytes of weights and has {size:,}."
        )
    if end < size:
        raise InputError(f"{shown} is damaged: {size - end:,} bytes follow its last tensor.")


def _refuse_other_format(shown: str, head: bytes) -> NoReturn:
    """Raise an InputError that names the format of a file that is no .safetensors file.

    shown: the file's name. head: its first bytes, at most 32.
    """
    for magic, what in MAGIC.items():
        if head.startswith(magic):
            raise InputError(f"{shown} is {what}.")
    if len(head) < 10:
        raise InputError(f"{shown} is truncated: it has {len(head)} bytes.")
    raise InputError(f"{shown} is no safetensors file: its header does not start with an object.")
