"""What the tabs of one page share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .server.runner import Painter


@dataclass
class Page:
    """Handed to each tab while the page is built; the block that tasks share adds its own.

    paint: see server/runner.py.
    head: the header, which names the model. tabs: to switch between them, by their key in TABS.
    panels: each tab itself. look: the button that opens the gallery's picture in Look inside.
    form: the shared settings' components by the name of their field.
    own_size: whether a picture's task leaves width and height to the picture.
    boxes: by task, where it takes its picture, see fields.py.
    worded: by dropdown, its choices in a language.
    seen: what shows the pictures, see workspace.py.
    fill: `fill(button, text, vary, tab)` makes a button fill that form, see reading.py.
    tokenizers: by model, of those that visitors chose. embeddings: the files, by name.
    """

    model_cache: Any
    paint: Painter
    i18n: Any
    head: Any
    tabs: Any
    panels: dict[str, Any]
    form: dict[str, Any] = field(default_factory=dict)
    own_size: Any = None
    boxes: dict[str, Any] = field(default_factory=dict)
    worded: dict[Any, Callable] = field(default_factory=dict)
    seen: Any = None
    look: Any = None
    fill: Callable | None = None
    tokenizers: dict[str, Any] = field(default_factory=dict)
    embeddings: dict[str, Path] = field(default_factory=dict)
