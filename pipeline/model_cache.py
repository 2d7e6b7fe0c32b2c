"""Cache of loaded models: the one that the server was started with, and those that users selected.

While a model is loading, the models in memory can still be used. They are evicted only when the new
model is complete or does not fit beside them.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, closest
from .model_files import library
from .model_files.identify import FAMILIES
from .model_files.library import Entry

if TYPE_CHECKING:
    from .model import Models

# Number of models in memory in addition to the first; the least recently used is evicted.
MAX_EXTRA_MODELS = 1


class ModelCache:
    """Cache of loaded models, safe to use from several threads.

    first    the model that the server was started with; it is never evicted
    options  keyword arguments of loading.load.load for all other models: device, dtype, ...

    Up to MAX_EXTRA_MODELS other models are kept. Models are selected only by the names that
    `choices` lists, so that a visitor cannot load an arbitrary file.
    """

    def __init__(self, first: Models, **options: Any):
        self.first, self.options = first, options
        # (model name, name of the replacing autoencoder or None): model; the last used is last
        self._held: dict[tuple[str, str | None], Models] = {}
        self._lock, self._loading = threading.Lock(), threading.Lock()

    def choices(self) -> list[Entry]:
        """List the models that may be selected: an Entry (name, path, family, note) for each.

        The model that the server was started with comes first, then the checkpoints found on this
        machine.
        """
        rows = library.find_entries("checkpoint")
        first_row = rows.pop(self.first.name, None)
        if first_row is None or first_row.path != self.first.path:
            if first_row is not None:  # the first model is another folder of the same name
                name = f"{first_row.name} ({first_row.path.parent.name})"
                rows[name] = replace(first_row, name=name)
            first_row = Entry(
                self.first.name,
                self.first.path,
                "checkpoint",
                FAMILIES[self.first.family],
                self.first.what,
            )
        return [first_row, *rows.values()]

    def hashes(self) -> dict[str, str]:
        """Return {name: hash} of all models that may be selected, to find the model of a picture.

        The hash is the first 10 hex digits of the SHA-256 of the model's file, "" for a model that
        is not in memory.
        """
        with self._lock:
            known = {name: models.hash for (name, _), models in self._held.items()}
        known[self.first.name] = self.first.hash
        return {e.name: known.get(e.name, "") for e in self.choices()}

    def vaes(self) -> list[Entry]:
        """List the autoencoders that may replace a model's own: an Entry (name, path, ...) each."""
        return list(library.find_entries("vae").values())

    def get(
        self, name: str | None = None, vae: str | None = None, lora_folder: Path | None = None
    ) -> Models:
        """Return a model by its name from the cache, or load it if it is not there.

        name: of a model that `choices` lists; None means the model that the server was started
        with. vae: name of an autoencoder that `vaes` lists; None means the model's own.
        lora_folder: a folder whose LoRAs prompts may name besides those in ./models; None for none.
        Raises InputError for an unknown name and if loading fails. Waits while another model is
        being loaded.
        """
        models = self._get(name, vae)
        return models if lora_folder is None else replace(models, lora_folder=lora_folder)

    def _get(self, name: str | None, vae: str | None) -> Models:
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
        with self._loading:  # one at a time; another thread may have loaded this model meanwhile
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
            with self._lock:  # it may fit without the others; they are loaded again when needed
                self._held.clear()
            oom.free_memory()
        models.name = entry.name
        return models

    def _use(self, key: tuple[str, str | None]) -> Models:
        self._held[key] = models = self._held.pop(key)
        return models
