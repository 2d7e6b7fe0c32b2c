"""InputError, the exception for bad input, and functions that format values for its message."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """The user's input is wrong; the message is one sentence that also says what would be right.

    The command line prints the sentence and exits with status 2; the web page shows it.
    """


def closest(name: str, names: Iterable[str]) -> str:
    """Return all `names` joined by ", ", sorted by their similarity to the unknown name `name`.

    For error messages: "There is no sampler eular; there is euler, euler_a, ...".
    """
    from difflib import SequenceMatcher

    low = str(name).lower()
    ranked = sorted(names, key=lambda n: -SequenceMatcher(None, low, n.lower()).ratio())
    return ", ".join(ranked)


def short(value: Any) -> str:
    """Return str(value) as one printable line of at most 120 characters, for error messages.

    A longer Path is cut at its beginning, any other value at its end.
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:
        text = "a number of thousands of digits"
    end = isinstance(value, Path)
    text = text[-121:] if end else text[:121]  # cut early, because a name may have megabytes
    text = "".join(c if c.isprintable() else "?" for c in text)
    if len(text) <= 120:
        return text
    return "..." + text[-117:] if end else text[:117] + "..."


def short_repr(value: Any) -> str:
    """Return repr(value), cut to at most 60 characters, for error messages."""
    try:
        text = repr(value)
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def reason_of(error: Exception) -> str:
    """Return a short text that says why reading a file failed, for error messages.

    It is the operating system's message, else the exception's, else the name of its class.
    """
    return short(getattr(error, "strerror", None) or str(error) or type(error).__name__)
