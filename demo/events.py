"""The events of a request for pictures, and the exception for internal errors."""

from __future__ import annotations

from dataclasses import dataclass


class Broken(Exception):
    """An internal error: the user cannot correct it, and its cause is in the server's log."""


@dataclass(frozen=True)
class Progress:
    """One sampling step is done.

    image and index count from 1, up to count and total; preview is a data URL.
    """

    image: int
    count: int
    index: int
    total: int
    seconds: float
    preview: str


@dataclass(frozen=True)
class Finished:
    """All pictures of a request are done.

    files: paths of PNG files that hold their parameters text, texts: these texts
    thumbnails: each picture as a data URL, for the history
    ran_on: device, dtype and backends, as the status line shows them
    warnings: settings that were not applied
    records: the key of each picture's recording, None where there is none
    """

    files: list[str]
    thumbnails: list[str]
    texts: list[str]
    seed: int
    seconds: float
    ran_on: str
    warnings: tuple[str, ...] = ()
    records: tuple[str | None, ...] = ()

    @property
    def parameters(self) -> str:
        """The parameters texts of all pictures, with empty lines between them."""
        return "\n\n".join(self.texts)
