"""The tab From zero: how Stable Diffusion works, in five chapters with something to try in each.

The chapters are tabs inside the tab. gr.Walkthrough would not do: it locks every chapter that the
reader has not reached yet.
"""

from __future__ import annotations

import gradio as gr

from ...page import Page
from ...ui.listeners import UNQUEUED
from ...ui.tab import Tab
from . import chapter_parts
from .chapters import CHAPTERS, chapter_texts
from .texts import TEXTS

TO_TOP = "() => { document.querySelector('#gb-zero').scrollIntoView({behavior: 'smooth'}); }"


def build(page: Page) -> None:
    """Build the tab From zero, which explains Stable Diffusion in five chapters.

    Adds its components to the page that is being built, and attaches their listeners.
    """
    i18n, keys = page.i18n, list(CHAPTERS)
    with gr.Column(elem_id="gb-zero", min_width=0):
        chapter_parts.prose(i18n, "zero_lead")
        with gr.Tabs(elem_id="zero-chapters", overflow_behavior="wrap") as chapters:
            for key, following in zip(keys, [*keys[1:], None], strict=True):
                with gr.Tab(i18n(f"zero_{key}_title"), id=key, elem_id=f"zero-{key}"):
                    CHAPTERS[key].build(page)
                    if following:
                        _add_next_button(i18n, chapters, following)


def _add_next_button(i18n: gr.I18n, chapters: gr.Tabs, key: str) -> None:
    """Add the button at the end of a chapter that opens the next one.

    chapters: the row of tabs, one for each chapter. key: the next chapter's key in CHAPTERS.
    """
    button = gr.Button(
        i18n(f"zero_{key}_title"), elem_id=f"zero-to-{key}", elem_classes="gb-onward"
    )
    button.click(lambda: gr.Tabs(selected=key), None, chapters, **UNQUEUED).then(None, js=TO_TOP)


TAB = Tab(title=("From zero", "从零讲起"), build=build, texts=TEXTS | chapter_texts())
