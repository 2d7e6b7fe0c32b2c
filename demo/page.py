"""What the tabs of one page share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from pipeline.model_cache import ModelCache

from .server.runner import Runner
from .server.runs import Runs
from .ui.fields import Box

if TYPE_CHECKING:
    from .workspace.layout import ResultView


TranslatedChoices = Callable[[str], list[tuple[str, str]]]


@dataclass
class Page:
    """Handed to each tab while the page is built; workspace/layout.py sets the components.

    head: the header, which names the model
    tabs: to switch between the tabs, by their key in TABS; panels: each tab itself
    form: the components of the shared settings, by the names of their fields
    own_size: whether width and height are left to the input picture
    boxes: by task, where it takes its picture, see ui/fields.py
    translated: by dropdown, its choices in a language
    result: the components that show pictures and status, see workspace/layout.py
    inside_button: the button that opens the gallery's picture in Look inside
    fill: `fill(button, text, vary, tab)` makes a button fill the form, see workspace/fill_form.py
    tokenizers: by model, of those that visitors chose
    embeddings: the files of textual inversion embeddings, by name
    runs: what visitors have started, and its state
    """

    model_cache: ModelCache
    runner: Runner
    i18n: gr.I18n
    head: gr.HTML
    tabs: gr.Tabs
    panels: dict[str, gr.Tab]
    form: dict[str, Component] = field(default_factory=dict)
    own_size: gr.Checkbox = field(init=False)
    boxes: dict[str, Box] = field(default_factory=dict)
    translated: dict[gr.Dropdown, TranslatedChoices] = field(default_factory=dict)
    result: ResultView = field(init=False)
    inside_button: gr.Button = field(init=False)
    fill: Callable[..., None] = field(init=False)
    tokenizers: dict[str, Any] = field(default_factory=dict)
    embeddings: dict[str, Path] = field(default_factory=dict)
    runs: Runs = field(default_factory=Runs)
