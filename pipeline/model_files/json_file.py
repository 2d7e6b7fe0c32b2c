"""Read JSON files from strangers; large, ambiguous or deeply nested ones raise InputError."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ..errors import InputError, reason_of, short

MAX_JSON = 16_000_000  # bytes; the largest of a real model, SD's tokenizer.json, has 4 MB


def read_json(path: Path) -> Any:
    """Return the parsed content of the JSON file `path`.

    Raises InputError where it cannot be read, has more than 16 MB, or is no valid JSON; duplicate
    keys, NaN and deep nesting are refused, too.
    """
    return parse_json(read_small_file(path), short(path), "")


def read_small_file(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises InputError where it has more than 16 MB, cannot be read or is no regular file.
    """
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
    """Parse JSON in UTF-8, more strictly than Python's json, because files come from strangers.

    Raises InputError for invalid JSON, duplicate keys, NaN, infinities, the integer -0, lone
    surrogates and deep nesting. shown: the file's name for the message. of: what of the file `raw`
    is, "The header of " or "" for all of it; the message puts it before the name.
    """

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            raise ValueError("a name stands in it twice")
        for text in (*keys, *keys.values()):
            if isinstance(text, str):
                text.encode()  # raises for a lone surrogate
        return keys

    def integer(digits: str) -> int:
        if digits == "-0":  # other parsers read it as a float
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
    """Return whether `values` is a list of integers from 0 to below 2**60, such as a shape.

    Checks values parsed from untrusted JSON; bools are not integers here.
    """
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**60 for v in values
    )
