"""What a person did wrong, in one sentence that also says what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Bad input of any kind: the command line exits with 2, the page shows the sentence."""


def closest(name: str, names) -> str:
    """`names` as text, those most like `name` first: for the end of an error sentence."""
    from difflib import SequenceMatcher

    low = str(name).lower()
    ranked = sorted(names, key=lambda n: -SequenceMatcher(None, low, n.lower()).ratio())
    return ", ".join(ranked)


def short(value: Any) -> str:
    """`value` as one printable line: the end of a long path, the start of anything else."""
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
