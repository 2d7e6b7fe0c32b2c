"""What the tabs of one page share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .work import Painter


@dataclass
class Page:
    """Handed to each tab while the page is built; the Generate tab comes first and adds its own.

    head: the header, which names the model. tabs: to switch between them, by their key in TABS.
    form: the Generate tab's components by the name of their field.
    fill: `fill(button, text, vary)` makes a button fill that form, see reading.py.
    tokenizers: by model, of those that visitors chose. embeddings: the files, by name.
    """

    shelf: Any
    paint: Painter
    i18n: Any
    head: Any
    tabs: Any
    form: dict[str, Any] = field(default_factory=dict)
    fill: Callable | None = None
    tokenizers: dict[str, Any] = field(default_factory=dict)
    embeddings: dict[str, Path] = field(default_factory=dict)
