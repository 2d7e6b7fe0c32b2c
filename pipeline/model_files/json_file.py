"""Read JSON files from strangers: bounded in size, without duplicate keys, NaN or deep nesting."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ..errors import InputError, reason_of, short

MAX_JSON = 16_000_000  # bytes; the largest honest one, SD's tokenizer.json, has 4 MB


def read_json(path: Path) -> Any:
    """Return the value of a JSON file of at most 16 MB, without duplicate keys or NaN."""
    return parse_json(read_small_file(path), short(path), "")


def read_small_file(path: Path) -> bytes:
    """Return the bytes of a file; InputError where it has more than 16 MB or cannot be read."""
    shown = short(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{shown} is no file.")
        if os.stat(path).st_size > MAX_JSON:
            raise InputError(f"{shown} is too large; at most {MAX_JSON:,} bytes are read.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {reason_of(error)}.") from None


def parse_json(raw: bytes, shown: str, of: str) -> Any:
    """Return the value in `raw`; InputError begins with `of` and `shown` where it is damaged."""

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            raise ValueError("a name stands in it twice")
        for text in (*keys, *keys.values()):
            if isinstance(text, str):
                text.encode()  # half a surrogate pair is no text
        return keys

    def integer(digits: str) -> int:
        if digits == "-0":  # a float to other readers
            raise ValueError("-0 is no whole number")
        return int(digits)

    def no_constant(name: str):
        raise ValueError(f"{name} is no number")

    try:
        text = raw.decode("utf-8")
        return json.loads(
            text, object_pairs_hook=no_duplicates, parse_constant=no_constant, parse_int=integer
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeError):
            reason = "it is not UTF-8"
        elif isinstance(error, RecursionError):
            reason = "it is nested too deeply"
        else:
            reason = reason_of(error)
        raise InputError(f"{of}{shown} is damaged: {reason}.") from None


def are_sizes(values: Any) -> bool:
    """Whether it is a list of integers from 0 to below 2**60, more than any file's size."""
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**60 for v in values
    )
