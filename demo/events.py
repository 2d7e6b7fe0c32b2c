"""The events of a request for pictures, Progress and Finished, and its exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError

from .texts import say


class Refused(InputError):
    """Raised for a request that is more than the server's limits allow; str() is in English.

    key, values: the text of the sentence in demo.texts and what is filled in, from which `sentence`
    makes it in another language. A value that is a list of (key, values) is filled in as
    these texts, joined by the text "or".
    """

    def __init__(self, key: str, **values: Any):
        self.key, self.values = key, values
        super().__init__(self.sentence("en"))

    def sentence(self, language: str) -> str:
        """Return the sentence in a language, "en" or "zh"."""
        values = dict(self.values)
        for name, value in values.items():
            if isinstance(value, list):
                parts = [say(part, language, **more) for part, more in value]
                values[name] = say("or", language).join(parts)
        return say(self.key, language, **values)


class Broken(Exception):
    """Raised in place of an unexpected exception, whose traceback is in the server's log.

    The user cannot correct the cause and is only told that the server failed.
    """


@dataclass(frozen=True)
class Progress:
    """The event that a request for pictures yields after each sampling step, to show its progress.

    image, count: number of the picture, from 1, and how many pictures the request draws
    index, total: number of the step, from 1, and how many steps the picture takes
    seconds: time since the request began
    preview: the predicted clean picture so far, a small JPEG as a data URL
    """

    image: int
    count: int
    index: int
    total: int
    seconds: float
    preview: str


@dataclass(frozen=True)
class Finished:
    """The last event of a request, with all its pictures.

    files: paths of the PNG files, one for each picture
    thumbnails: each picture as a small JPEG data URL, for the browser's history
    texts: each picture's parameters text (infotext), which its PNG file holds too
    seed: seed of the first picture
    seconds: duration of the whole request
    ran_on: device, dtype and backends in one string, as the status line shows them
    warnings: sentences on settings that were not applied as requested
    records: for each picture the key of its recording (all model calls, which the tab Look inside
        shows) in the server's RecordingStore; None for a picture without one; () if the request was
        not recorded
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
        """The parameters texts (infotext) of all pictures, joined by empty lines."""
        return "\n\n".join(self.texts)
