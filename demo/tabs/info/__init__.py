"""What a picture was made with: a dropped file or a pasted text is read, and fills the form."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import gradio as gr

from pipeline.errors import InputError
from pipeline.metadata import infotext

from ...page import Page
from ...texts import request_language, say
from ...ui.listeners import UNQUEUED
from ...ui.status import error_paragraph
from ...ui.tab import Tab
from ...workspace import fill_form, send_to
from . import texts, verify


def build(page: Page) -> None:
    """Build the tab inside the page and wire it."""
    i18n = page.i18n
    run = verify.make_verifier(page.model_cache, page.runner.on_device)
    verify.add_endpoint(run)
    with gr.Column(elem_id="gb-info", min_width=0):
        with gr.Column(elem_id="gb-given", elem_classes="gb-card", min_width=0):
            # A plain file: Gradio's picture component would decode what strangers send.
            dropped = gr.File(
                label=i18n("info_drop"), height=170, elem_id="info-file", elem_classes="gb-drop"
            )
            gr.HTML(
                f'<p class="gb-note gb-not">{i18n("info_drop_hint")}</p>', apply_default_css=False
            )
            pasted = gr.Textbox(
                label=i18n("info_paste"), lines=5, max_lines=10, elem_id="info-text"
            )
        with gr.Column(elem_id="gb-found", elem_classes="gb-card", min_width=0):
            picture = gr.HTML(apply_default_css=False, elem_id="info-picture")
            view = gr.HTML(_nothing(i18n), apply_default_css=False, elem_id="info-settings")
            with gr.Row(visible=False, elem_id="info-send", elem_classes="gb-send") as sendable:
                senders = send_to.build_buttons(page, "info")
            with gr.Column(visible=False, min_width=0) as usable:
                fill_form.build_buttons(page, pasted, "info", tab="generate")
            file = gr.State()  # the path of the picture that is shown
            panel = verify.build_panel(page, file, run)

    known = gr.State("")  # the text that is shown
    outputs = [known, file, picture, view, usable, sendable, *panel.outputs]

    no_picture = {file: None, picture: "", sendable: gr.update(visible=False)}
    no_picture |= panel.show_receipt(None, "en")

    def open_file(path: str, request: gr.Request):
        """The file's text also goes into the box, to be read and copied.

        A file without any changes nothing else. The place to drop one is free again.
        """
        try:
            text = infotext.read(path)
        except InputError as error:
            # where it lies on the server is nobody's business
            sentence = str(error).replace(str(path), Path(path).name)
            return {dropped: None, picture: error_paragraph(sentence)}
        language = request_language(request)
        filled = {dropped: None, pasted: text} | something(text, language)
        shown = {file: path, picture: _image(path, language), sendable: gr.update(visible=True)}
        return filled | shown | panel.show_receipt(path, language)

    def show(text: str, shown: str, request: gr.Request):
        """A text that was pasted; not the one that `open_file` has just put there."""
        if text == shown:
            return {known: shown}
        return something(text, request_language(request)) if text.strip() else nothing()

    def something(text: str, language: str) -> dict:
        seen = fill_form.render_settings(
            fill_form.read_parameters(text, page.model_cache), language
        )
        return {known: text, view: seen, usable: gr.update(visible=True), **no_picture}

    def nothing() -> dict:
        return {known: "", view: _nothing(i18n), usable: gr.update(visible=False), **no_picture}

    dropped.upload(open_file, dropped, [dropped, pasted, *outputs], **UNQUEUED)
    send_to.wire_buttons(page, senders, [file], lambda path: path)
    pasted.change(show, [pasted, known], outputs, trigger_mode="always_last", **UNQUEUED)


def _nothing(i18n) -> str:
    return f'<p class="gb-note gb-not">{i18n("info_none")}</p>'


def _image(path: str, language: str) -> str:
    """The visitor's own file, shown by the browser as it is."""
    alt = say("info_alt", language)
    return f'<img class="gb-dropped" src="gradio_api/file={quote(path)}" alt="{alt}">'


TAB = Tab(title=("PNG info", "图片信息"), build=build, texts=texts.TEXTS)
