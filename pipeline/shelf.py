"""The models that a server holds: one that it started with, and those that visitors chose since.

Loading is load-then-swap: the models in use keep serving until the new one is whole, and a file
that cannot be loaded changes nothing.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import library
from .errors import InputError, closest
from .library import Entry

if TYPE_CHECKING:
    from .checkpoints import Models

KEEP = 2  # models in memory; the one that was used longest ago makes room


class Shelf:
    """`first` is there from the start; `options` go to `load` for every other (device, dtype...).

    A model is asked for by a name of `choices` alone, so that a visitor reaches no other file.
    """

    def __init__(self, first: Models, **options: Any):
        self.first, self.options = first, options
        self._held: dict[str, Models] = {first.name: first}  # the one used last stands last
        self._lock, self._loading = threading.Lock(), threading.Lock()

    def choices(self) -> list[Entry]:
        """The checkpoints to choose from, the first model before all others."""
        rows = library.named("checkpoint")
        there = rows.pop(self.first.name, None)
        if there is None or there.path != getattr(self.first, "path", there.path):
            if there is not None:  # the first is another folder of the same name
                name = f"{there.name} ({there.path.parent.name})"
                rows[name] = replace(there, name=name)
            there = Entry(
                self.first.name,
                getattr(self.first, "path", None),
                "checkpoint",
                getattr(self.first, "family", ""),
                getattr(self.first, "what", ""),
            )
        return [there, *rows.values()]

    def get(self, name: str | None = None) -> Models:
        """The model `name` (None: the first), loaded if it is not; InputError if that fails."""
        name = name or self.first.name
        with self._lock:
            if name in self._held:
                return self._use(name)
        entry = {e.name: e for e in self.choices()}.get(name) if isinstance(name, str) else None
        if entry is None:
            names = [e.name for e in self.choices()]
            raise InputError(
                f"There is no model {str(name)[:100]!r} to choose; there is"
                f" {closest(str(name)[:100], names)}."
            )
        if entry.reason:
            raise InputError(entry.reason)
        with self._loading:  # one at a time; whoever waited finds it loaded
            with self._lock:
                if name in self._held:
                    return self._use(name)
            models = self._load(entry)
            with self._lock:
                self._held[name] = models
                while len(self._held) > KEEP:
                    self._held.pop(next(iter(self._held)))
                return models

    def _load(self, entry: Entry) -> Models:
        from .checkpoints import NoRoom, load

        try:
            models = load(entry.path, **self.options)
        except NoRoom:  # beside the others; without them it may fit
            with self._lock:
                self._held.clear()
            models = load(entry.path, **self.options)
        models.name = entry.name
        return models

    def _use(self, name: str) -> Models:
        self._held[name] = models = self._held.pop(name)
        return models
