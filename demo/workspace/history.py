"""The history: the pictures that this browser made, with their settings, kept over reloads.

It is stored in the browser's localStorage and shown from there (history.js): the server keeps
nothing, other browsers see nothing, and several open pages add to one list. gr.BrowserState would
send the whole list to the server and back with each picture, and pages would overwrite each other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from ..events import Finished
from ..texts import request_language
from ..ui.listeners import UNQUEUED, event_value
from . import fill_form

if TYPE_CHECKING:
    from ..page import Page

ON_LOAD = Path(__file__).with_name("history.js").read_text(encoding="utf-8")
FORGET = "() => { window.dispatchEvent(new Event('glassbox-forget')); }"


def build_panel(page: Page) -> gr.HTML:
    """Build the history: a strip of the browser's past pictures, and the settings of a clicked one.

    Returns the strip; setting its value to the result of `history_entries` adds pictures.
    """
    i18n = page.i18n
    with gr.Row(elem_id="history-head"):
        gr.HTML(f'<h2 class="gb-title">{i18n("history")}</h2>', apply_default_css=False)
        clear = gr.Button(
            i18n("history_clear"), size="sm", elem_id="history-clear", scale=0, min_width=110
        )
    gr.HTML(
        f'<p class="gb-note gb-not">{i18n("history_hint")}</p>',
        apply_default_css=False,
        elem_id="history-hint",
    )
    strip = gr.HTML(
        "[]",
        html_template='<ol class="gb-strip"></ol>',
        js_on_load=ON_LOAD,
        apply_default_css=False,
        elem_id="strip",
    )
    with gr.Column(visible=False, elem_id="history-chosen", min_width=0) as chosen:
        text, view = gr.State(""), gr.HTML(apply_default_css=False, elem_id="history-settings")
        fill_form.build_buttons(page, text, "history")

    def show(picked: gr.EventData, request: gr.Request):
        words = event_value(picked, "value", str)
        if not words:
            return words, "", gr.update(visible=False)
        read = fill_form.read_parameters(words, page.model_cache)
        return (
            words,
            fill_form.render_settings(read, request_language(request)),
            gr.update(visible=True),
        )

    strip.select(show, None, [text, view, chosen], **UNQUEUED)
    clear.click(lambda: gr.update(visible=False), None, chosen, js=FORGET, **UNQUEUED)
    return strip


def history_entries(event: Finished) -> str:
    """Return a finished request's pictures as JSON, from which history.js adds them to the history.

    It is a list of {"image": JPEG data URL, "text": parameters text (infotext)}.
    """
    pairs = zip(event.thumbnails, event.texts, strict=True)
    return json.dumps([{"image": image, "text": text} for image, text in pairs])
