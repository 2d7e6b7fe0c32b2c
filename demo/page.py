"""The object that hands the models, components and state of one page to its tabs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from pipeline.model_cache import ModelCache

from .limits import Limits
from .server.runner import Runner
from .server.runs import Runs
from .ui.fields import Box

if TYPE_CHECKING:
    from .workspace.layout import ResultView


# Returns a menu's (label, value) pairs in a language ("en" or "zh").
TranslatedChoices = Callable[[str], list[tuple[str, str]]]


@dataclass
class Page:
    """What the tabs of one page share: models, components and state.

    `demo.build` creates it and hands it to each tab's `build`. demo/workspace/layout.py sets the
    fields from `form` to `fill`.

    runner: runs requests on the server's device, one at a time
    head: the header, which names the model
    tabs, panels: the row of tabs, and a dict from tab key (such as "inpaint") to its gr.Tab
    limits: what visitors may use of the server
    form: a dict from field name of GenerateOptions (such as "steps"), "model" or "vae" to the
        component that sets it
    own_size: checkbox, whether the result's width and height come from the input picture
    boxes: a dict from task key (such as "inpaint") to the component of its input picture
    translated: a dict from dropdown to the function that returns its (label, value) choices in a
        language
    result: the components that show pictures, status line and history
    inside_button: the button that opens the gallery's selected picture in the tab Look inside,
        which replays how it was drawn
    fill: fill(button, text, vary, tab) makes `button` copy the parameters text of the component
        `text` into the form, see workspace/fill_form.py
    tokenizers: a dict from model name to the tokenizer of each model that a visitor has chosen
    embeddings: a dict from name to file of the textual inversion embeddings
    runs: the states of all runs; a run is one press of a button that draws or trains
    """

    model_cache: ModelCache
    runner: Runner
    i18n: gr.I18n
    head: gr.HTML
    tabs: gr.Tabs
    panels: dict[str, gr.Tab]
    limits: Limits
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
