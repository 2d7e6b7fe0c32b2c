"""InputError, and how a value is shown in its sentence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Bad input of any kind, in one sentence that also says what would be right.

    The command line exits with 2, the page shows the sentence.
    """


def closest(name: str, names: Iterable[str]) -> str:
    """Return `names` as text, those most like `name` first: for the end of an error sentence."""
    from difflib import SequenceMatcher

    low = str(name).lower()
    ranked = sorted(names, key=lambda n: -SequenceMatcher(None, low, n.lower()).ratio())
    return ", ".join(ranked)


def short(value: Any) -> str:
    """Return `value` as one printable line of at most 120 characters.

    Of a long path the end is shown, of anything else the beginning.
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:
        text = "a number of thousands of digits"
    end = isinstance(value, Path)
    text = text[-121:] if end else text[:121]  # one more than is shown: a name may have megabytes
    text = "".join(c if c.isprintable() else "?" for c in text)
    if len(text) <= 120:
        return text
    return "..." + text[-117:] if end else text[:117] + "..."


def short_repr(value: Any) -> str:
    """Return repr(value) in at most 60 characters: text keeps its quotes."""
    try:
        text = repr(value)
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def reason_of(error: Exception) -> str:
    """Return why a file could not be read, in the system's words where it has some."""
    return short(getattr(error, "strerror", None) or str(error) or type(error).__name__)
