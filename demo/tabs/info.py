"""What a picture was made with: a dropped file or a pasted text is read, and fills the form."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import gradio as gr

from pipeline import infotext
from pipeline.errors import InputError

from .. import reading, stage
from ..texts import language, say

PRIVATE = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


def tab(page) -> None:
    """Build the tab inside the page and wire it."""
    i18n = page.i18n
    with gr.Column(elem_id="gb-info", min_width=0):
        with gr.Column(elem_id="gb-drop", elem_classes="gb-card", min_width=0):
            # A plain file: Gradio's picture component would decode what strangers send.
            dropped = gr.File(label=i18n("info_drop"), height=170, elem_id="info-file")
            gr.HTML(
                f'<p class="gb-note gb-not">{i18n("info_drop_hint")}</p>', apply_default_css=False
            )
            pasted = gr.Textbox(
                label=i18n("info_paste"), lines=5, max_lines=10, elem_id="info-text"
            )
        with gr.Column(elem_id="gb-found", elem_classes="gb-card", min_width=0):
            picture = gr.HTML(apply_default_css=False, elem_id="info-picture")
            view = gr.HTML(_nothing(i18n), apply_default_css=False, elem_id="info-settings")
            with gr.Column(visible=False, min_width=0) as usable:
                reading.buttons(page, pasted, "info", tab="generate")

    known = gr.State("")  # the text that is shown
    outputs = [known, picture, view, usable]

    def open_file(path: str, request: gr.Request):
        """The file's text also goes into the box, to be read and copied.

        A file without any changes nothing else. The place to drop one is free again.
        """
        try:
            text = infotext.read(path)
        except InputError as error:
            # where it lies on the server is nobody's business
            sentence = str(error).replace(str(path), Path(path).name)
            return {dropped: None, picture: stage.sorry(sentence)}
        tongue = language(request)
        filled = {dropped: None, pasted: text} | something(text, tongue)
        return filled | {picture: _image(path, tongue)}

    def show(text: str, shown: str, request: gr.Request):
        """A text that was pasted; not the one that `open_file` has just put there."""
        if text == shown:
            return {known: shown}
        return something(text, language(request)) if text.strip() else nothing()

    def something(text: str, tongue: str) -> dict:
        seen = reading.html(reading.read(text, page.shelf), tongue)
        return {known: text, picture: "", view: seen, usable: gr.update(visible=True)}

    def nothing() -> dict:
        return {known: "", picture: "", view: _nothing(i18n), usable: gr.update(visible=False)}

    dropped.upload(open_file, dropped, [dropped, pasted, *outputs], **PRIVATE)
    pasted.change(show, [pasted, known], outputs, trigger_mode="always_last", **PRIVATE)


def _nothing(i18n) -> str:
    return f'<p class="gb-note gb-not">{i18n("info_none")}</p>'


def _image(path: str, tongue: str) -> str:
    """The visitor's own file, shown by the browser as it is."""
    alt = say("info_alt", tongue)
    return f'<img class="gb-dropped" src="gradio_api/file={quote(path)}" alt="{alt}">'
