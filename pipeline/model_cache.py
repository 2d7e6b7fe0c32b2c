"""Cache of loaded models: the one that the server started with and those chosen since.

Loading is load-then-swap: the models in use keep serving until the new one is complete, and a
file that cannot be loaded changes nothing.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .errors import InputError, closest
from .model_files import library
from .model_files.identify import FAMILIES
from .model_files.library import Entry

if TYPE_CHECKING:
    from .model import Models

MAX_EXTRA_MODELS = (
    1  # models in memory beside the first; the one that was used longest ago makes room
)


class ModelCache:
    """Holds `first` always and MAX_EXTRA_MODELS others, loaded with `options` (device, dtype...).

    A model is asked for by a name of `choices` alone, so that a visitor reaches no other file.
    """

    def __init__(self, first: Models, **options: Any):
        self.first, self.options = first, options
        # the others, by name and other autoencoder; the one used last stands last
        self._held: dict[tuple[str, str | None], Models] = {}
        self._lock, self._loading = threading.Lock(), threading.Lock()

    def choices(self) -> list[Entry]:
        """Return the checkpoints to choose from, the first model before all others."""
        rows = library.find_entries("checkpoint")
        there = rows.pop(self.first.name, None)
        if there is None or there.path != self.first.path:
            if there is not None:  # the first is another folder of the same name
                name = f"{there.name} ({there.path.parent.name})"
                rows[name] = replace(there, name=name)
            there = Entry(
                self.first.name,
                self.first.path,
                "checkpoint",
                FAMILIES[self.first.family],
                self.first.what,
            )
        return [there, *rows.values()]

    def hashes(self) -> dict[str, str]:
        """Return {name: hash} of the models to choose; "" where one has not been loaded yet."""
        with self._lock:
            known = {name: models.hash for (name, _), models in self._held.items()}
        known[self.first.name] = self.first.hash
        return {e.name: known.get(e.name, "") for e in self.choices()}

    def vaes(self) -> list[Entry]:
        """Return the autoencoders that may take the place of a model's own."""
        return list(library.find_entries("vae").values())

    def get(self, name: str | None = None, vae: str | None = None) -> Models:
        """Return the model `name` (None: the first) with the autoencoder `vae` (None: its own).

        It is loaded if it is not in the cache; InputError if that fails.
        """
        name, vae = name or self.first.name, vae or None
        if not isinstance(name, str) or not isinstance(vae, str | None):
            raise InputError("A model and an autoencoder are asked for by their names.")
        if vae is not None and vae not in {e.name for e in self.vaes()}:
            there = closest(str(vae)[:100], [e.name for e in self.vaes()]) or "none"
            raise InputError(
                f"There is no autoencoder {str(vae)[:100]!r} to choose; there is {there}."
            )
        key = name, vae
        if key == (self.first.name, None):
            return self.first
        with self._lock:
            if key in self._held:
                return self._use(key)
        entry = {e.name: e for e in self.choices()}.get(name)
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
                if key in self._held:
                    return self._use(key)
            models = self._load(entry, vae)
            with self._lock:
                self._held[key] = models
                while len(self._held) > MAX_EXTRA_MODELS:
                    self._held.pop(next(iter(self._held)))
                return models

    def _load(self, entry: Entry, vae: str | None) -> Models:
        from . import oom
        from .loading.load import load

        for last in (False, True):
            try:
                models = load(entry.path, vae=vae, **self.options)
                break
            except oom.DeviceOutOfMemory:
                if last:
                    raise
            with self._lock:  # without the others it may fit; they are loaded again when asked for
                self._held.clear()
            oom.free_memory()
        models.name = entry.name
        return models

    def _use(self, key: tuple[str, str | None]) -> Models:
        self._held[key] = models = self._held.pop(key)
        return models
