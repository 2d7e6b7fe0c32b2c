"""From zero: how Stable Diffusion works, in five chapters with something to try in each."""

from __future__ import annotations

import gradio as gr

from ..zero import CHAPTERS, parts


def tab(page) -> None:
    """Build the tab inside the page and wire it."""
    i18n = page.i18n
    with gr.Column(elem_id="gb-zero", min_width=0):
        parts.prose(i18n, "zero_lead")
        with gr.Walkthrough(selected=0, elem_id="zero-chapters"):
            for number, (key, chapter) in enumerate(CHAPTERS.items()):
                with gr.Step(i18n(f"zero_{key}_title"), id=number, elem_id=f"zero-{key}"):
                    chapter(page)
