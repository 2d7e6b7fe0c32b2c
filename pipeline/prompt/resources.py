"""What a request's texts ask for beside words: LoRAs and textual inversions from the library."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, closest, short
from ..model_files import library
from ..model_files.library import Entry
from .embeddings import Embedding, read_embedding
from .syntax import ParsedPrompt, parse

if TYPE_CHECKING:
    from ..lora.adapters import Active
    from ..options import GenerateOptions


@dataclass(frozen=True)
class PromptResources:
    """The two texts read, what they named found and opened, and what was not found."""

    prompt: ParsedPrompt
    negative: ParsedPrompt
    adapters: Active
    embeddings: dict[str, Embedding]
    used: dict[str, dict[str, str]]  # kind: name: hash of the file's weights
    warnings: tuple[str, ...]

    def hashes(self, kind: str) -> str | None:
        """`name: hash, name: hash` of what was used, as A1111 writes it; None for nothing."""
        rows = [f"{name}: {digest}" for name, digest in self.used[kind].items()]
        return ", ".join(rows) or None


def find_resources(models: Any, options: GenerateOptions) -> PromptResources:
    """InputError in one sentence for a LoRA that does not fit this model: nothing is drawn."""
    parsed = parse(options.prompt, options.steps)
    negative = parse(options.negative, options.steps)
    warnings = [*parsed.hints, *negative.hints]
    used: dict[str, dict[str, str]] = {"lora": {}, "embedding": {}}
    adapters = []
    there = library.find_entries("lora") if parsed.loras or negative.loras else {}
    for lora in negative.loras:
        warnings.append(f"<lora:{short(lora.name)}> in the negative prompt does nothing.")
    for lora in parsed.loras:
        entry = _find(there, lora.name)
        if entry is None:
            damaged = [e.reason for e in library.scan() if e.name == lora.name and e.reason]
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
    """By name, else by name whatever its case."""
    low = {n.lower(): e for n, e in entries.items()}
    return entries.get(name) or low.get(name.lower())


def content_hash(path: Path) -> str:
    """First 12 hex digits of the SHA-256 of a safetensors file's weights, without its header."""
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
