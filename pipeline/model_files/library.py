"""List the models on this machine: checkpoints, LoRAs, textual inversions and autoencoders.

Searched are the models that this package ships and the folder ./models with its subfolders. What a
file is follows from its tensors, not from the folder it is in; it is called by its file name
without ending. Only headers are read, and read again only when a file changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from . import manifest
from .identify import FAMILIES, KINDS, how_to_use, inspect_file
from .safetensors_header import PICKLES

EMBEDDED = Path(__file__).parents[1] / "models"  # shipped with this package
UPSCALER = EMBEDDED / "upscaler"  # not listed: no diffusion model, see images/upscaler.py
OWN = Path("models")  # the user's
NO_VAE = ", no autoencoder"  # end of the note of a checkpoint without one
DEPTH = 4  # levels of folders that are searched, ./models included


@dataclass(frozen=True)
class Entry:
    """A model file or folder in the list of this machine's models; users choose it by `name`.

    kind: "checkpoint", "lora", "embedding" or "vae". family: "SD 1.x", "SD 2.x", "SD XL", or ""
    where it is unknown. note: what it is, in a few words. reason: a sentence that says why it
    cannot be used; None for a usable model.
    """

    name: str
    path: Path
    kind: str
    family: str
    note: str
    reason: str | None = None


def scan(folder: Path | None = None) -> list[Entry]:
    """List all models on this machine: those that this package ships, then those in ./models.

    In each folder they are sorted by name. A model whose name is that of an earlier one of the same
    kind is called "name (folder)"; it is left out where that name is taken, too. folder: one more
    folder to list, after the others; None for none.
    """
    entries: list[Entry] = []
    taken: set[tuple[str, str]] = set()
    for place in (EMBEDDED, OWN, *([folder] if folder else ())):
        for path in _walk(place, DEPTH):
            entry = _entry(path)
            name = entry.name
            if (entry.kind, name) in taken:
                name = f"{name} ({path.parent.name})"
            if (entry.kind, name) not in taken:
                taken.add((entry.kind, name))
                entries.append(replace(entry, name=name))
    return entries


def find_entries(kind: str, folder: Path | None = None) -> dict[str, Entry]:
    """Return all models of one kind that this package ships or that are in ./models, by name.

    kind: "checkpoint", "lora", "embedding" or "vae". folder: one more folder that is searched; None
    for none.
    """
    return {e.name: e for e in scan(folder) if e.kind == kind}


def find_checkpoint(name: str) -> Path | None:
    """Return the path of the checkpoint `name` that this package ships or that is in ./models.

    None where there is none. To be fast, only files called `name` are opened; all are opened only
    for a name such as "dream (anime)", which tells apart equally named models in several folders.
    """
    if "(" not in name:  # else it may be one of the names that `scan` made unique
        for place in (EMBEDDED, OWN):
            for path in _walk(place, DEPTH):
                if path.is_dir() and path.name == name:
                    return path
                if not path.is_dir() and path.stem == name and _entry(path).kind == "checkpoint":
                    return path
    entry = find_entries("checkpoint").get(name) if "(" in name else None
    return entry.path if entry else None


def _walk(place: Path, depth: int) -> Iterator[Path]:
    """Yield the paths of model folders and weights files in the folder `place` and its subfolders.

    depth: levels of folders to search, `place` included. Files and folders whose names begin with
    "." or "_" are skipped, and so is what cannot be read.
    """
    try:
        paths = sorted(place.iterdir(), key=lambda p: p.name.lower())
    except OSError:
        return
    for path in paths:
        if path.name.startswith((".", "_")):
            continue
        try:
            folder = path.is_dir()
            is_model = folder and (place == EMBEDDED or (path / "model_index.json").exists())
        except OSError:  # a folder that may not be looked into
            continue
        if path == UPSCALER:
            continue
        if is_model:
            yield path
        elif folder:
            if depth > 1:
                yield from _walk(path, depth - 1)
        elif path.suffix.lower() in (".safetensors", *PICKLES):
            yield path


def _entry(path: Path) -> Entry:
    try:
        if path.is_dir():
            stats = [(str(p), p.stat()) for p in sorted(path.rglob("*"))]
            return _folder(path, tuple((n, s.st_size, s.st_mtime_ns) for n, s in stats))
        state = os.stat(path)
    except OSError as error:
        return Entry(path.stem, path, "checkpoint", "", "", f"{path.name}: {error.strerror}.")
    return _file(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _folder(path: Path, state: tuple) -> Entry:
    try:
        found = manifest.open(path, hashed=False)
    except InputError as error:
        return Entry(path.name, path, "checkpoint", "", "diffusers folder", str(error))
    note = (
        "small model with its own vocabulary" if "vocabulary.json" in found.extras else found.what
    )
    return Entry(path.name, path, "checkpoint", FAMILIES[found.family], note)


@lru_cache(maxsize=4096)
def _file(path: Path, size: int, changed: int) -> Entry:
    if path.suffix.lower() != ".safetensors":
        reason = f"{path.name} is a pickle, and pickled weights are not loaded."
        return Entry(path.stem, path, "checkpoint", "", "pickle", reason)
    try:
        found = inspect_file(path)
    except InputError as error:
        return Entry(path.stem, path, "checkpoint", "", "damaged", str(error))
    family = FAMILIES.get(found.family, "")
    if not found.kind:
        reason = f"{path.name} is {found.what}; {how_to_use(found)}"
        return Entry(path.stem, path, "checkpoint", family, found.what, reason)
    note = f"{family} {KINDS[found.kind]}".strip()
    if found.kind == "checkpoint":
        note = f"{family}, single file" + ("" if "vae" in found.configs else NO_VAE)
    return Entry(path.stem, path, found.kind, family, note)
