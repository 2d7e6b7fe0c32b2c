"""Find and open the LoRAs and textual inversions that a request's prompts name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, closest, short
from ..model_files import library
from ..model_files.library import Entry
from .embeddings import Embedding, read_embedding
from .syntax import ParsedPrompt, parse

if TYPE_CHECKING:
    from ..lora.adapters import Active
    from ..model import Models
    from ..options import GenerateOptions


@dataclass(frozen=True)
class PromptResources:
    """What the two prompts of a request need: their parsed text, LoRAs and textual inversions.

    adapters: for each LoRA (the LoRA, its strength in the UNet, in the text encoders). embeddings:
    textual inversions by name. used: {"lora": {name: hash of the file's weights}, "embedding":
    {...}}. warnings: sentences about syntax and about names that were not found.
    """

    prompt: ParsedPrompt
    negative: ParsedPrompt
    adapters: Active
    embeddings: dict[str, Embedding]
    used: dict[str, dict[str, str]]
    warnings: tuple[str, ...]

    def hashes(self, kind: str) -> str | None:
        """Return "name: hash, name: hash" of the files used, as A1111 writes it; None if none are.

        kind: "lora" or "embedding".
        """
        rows = [f"{name}: {digest}" for name, digest in self.used[kind].items()]
        return ", ".join(rows) or None


def find_resources(models: Models, options: GenerateOptions) -> PromptResources:
    """Parse the prompts of a request and open the LoRAs and textual inversions that they name.

    options: the request's, after defaults were filled in, so that `steps` is set. The files are
    looked up in ./models, LoRAs also in `models.lora_folder`; a LoRA that is not there gives a
    warning. Raises InputError for a LoRA that is damaged or does not fit this model.
    """
    assert options.steps is not None, "resolved options have steps"
    parsed = parse(options.prompt, options.steps)
    negative = parse(options.negative, options.steps)
    warnings = [*parsed.hints, *negative.hints]
    used: dict[str, dict[str, str]] = {"lora": {}, "embedding": {}}
    adapters = []
    folder = models.lora_folder
    there = library.find_entries("lora", folder) if parsed.loras or negative.loras else {}
    for lora in negative.loras:
        warnings.append(f"<lora:{short(lora.name)}> in the negative prompt does nothing.")
    for lora in parsed.loras:
        entry = _find(there, lora.name)
        if entry is None:
            damaged = [e.reason for e in library.scan(folder) if e.name == lora.name and e.reason]
            if damaged:
                raise InputError(damaged[0])
            names = closest(lora.name, there) or f"none in the folder {library.OWN}"
            warnings.append(f"There is no LoRA {short(repr(lora.name))}; there is {names}.")
            continue
        adapters.append((models.adapters.load(entry.path), lora.unet, lora.text))
        used["lora"][entry.name] = content_hash(entry.path)
    embeddings = {}
    words = f"{options.prompt}\n{options.negative}".lower()
    for name, entry in library.find_entries("embedding").items():
        if name.lower() in words:
            try:
                embeddings[name] = read_embedding(entry.path)
                used["embedding"][name] = content_hash(entry.path)
            except InputError as error:
                warnings.append(f"{error} Its name is left as plain words.")
    return PromptResources(parsed, negative, tuple(adapters), embeddings, used, tuple(warnings))


def _find(entries: dict[str, Entry], name: str) -> Entry | None:
    """Return the LoRA called `name`, else one whose name differs only in case, or None.

    entries: the LoRAs in ./models by name.
    """
    low = {n.lower(): e for n, e in entries.items()}
    return entries.get(name) or low.get(name.lower())


def content_hash(path: Path) -> str:
    """Return the first 12 hex digits of the SHA-256 of a safetensors file's weights.

    The header is left out, so that editing the metadata keeps the hash. The result is cached until
    the file's size or modification time changes.
    """
    state = path.stat()
    return _content_hash(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _content_hash(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:12]
