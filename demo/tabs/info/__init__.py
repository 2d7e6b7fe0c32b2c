"""The tab PNG info: show the settings that a picture was drawn with.

They are read from a dropped picture file or a pasted text, and a button copies them into the form
of the tab Generate. A file with a receipt can be verified, see verify.py.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import gradio as gr

from pipeline.errors import InputError
from pipeline.metadata import infotext

from ...page import Page
from ...texts import request_language, say
from ...ui.failures import error_sentence
from ...ui.listeners import UNQUEUED
from ...ui.status import error_paragraph
from ...ui.tab import Tab
from ...workspace import fill_form, send_to
from . import texts, verify


def build(page: Page) -> None:
    """Build the tab PNG info, which shows the settings in a picture file and verifies its receipt.

    Adds its components to the page that is being built, and attaches their listeners.
    """
    i18n = page.i18n
    run = verify.make_verifier(
        page.model_cache, page.runner.on_device, page.runner.visitors.lora_folder
    )
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
            file = gr.State()  # the path of the opened picture file; None for a pasted text
            panel = verify.build_panel(page, file, run)

    current_text = gr.State("")  # the parameters text whose settings are shown
    outputs = [current_text, file, picture, view, usable, sendable, *panel.outputs]

    no_picture = {file: None, picture: "", sendable: gr.update(visible=False)}
    no_picture |= panel.show_receipt(None, "en")

    def open_file(path: str, request: gr.Request) -> dict[Any, Any]:
        """Return updates that show a dropped file, its settings and its receipt.

        Its parameters text is put into the text box; the drop area is emptied for the next file. A
        file without a parameters text gives an error sentence, and all else stays as it was.
        """
        try:
            text = infotext.read(path)
        except InputError as error:
            sentence = error_sentence(error, request_language(request), upload=path)
            return {dropped: None, picture: error_paragraph(sentence)}
        language = request_language(request)
        updates = {dropped: None, pasted: text} | show_settings(text, language)
        updates |= {file: path, picture: _image(path, language), sendable: gr.update(visible=True)}
        return updates | panel.show_receipt(path, language)

    def show_pasted(text: str, current: str, request: gr.Request) -> dict[Any, Any]:
        """Return updates that show the settings in a pasted text, without a picture.

        current: the text whose settings are shown. When `open_file` has filled the text box, the
        text is the current one already, and nothing changes.
        """
        if text == current:
            return {current_text: current}
        return show_settings(text, request_language(request)) if text.strip() else clear_settings()

    def show_settings(text: str, language: str) -> dict[Any, Any]:
        settings = fill_form.read_parameters(text, page.model_cache)
        html = fill_form.render_settings(settings, language)
        return {current_text: text, view: html, usable: gr.update(visible=True), **no_picture}

    def clear_settings() -> dict[Any, Any]:
        hidden = gr.update(visible=False)
        return {current_text: "", view: _nothing(i18n), usable: hidden, **no_picture}

    dropped.upload(open_file, dropped, [dropped, pasted, *outputs], **UNQUEUED)
    send_to.wire_buttons(page, senders, [file], lambda path: path)
    pasted.change(
        show_pasted, [pasted, current_text], outputs, trigger_mode="always_last", **UNQUEUED
    )


def _nothing(i18n: gr.I18n) -> str:
    return f'<p class="gb-note gb-not">{i18n("info_none")}</p>'


def _image(path: str, language: str) -> str:
    """Return an <img> of the picture file that the visitor has uploaded, at `path` on the server.

    Gradio serves the file to the browser without decoding it.
    """
    alt = say("info_alt", language)
    return f'<img class="gb-dropped" src="gradio_api/file={quote(path)}" alt="{alt}">'


TAB = Tab(title=("PNG info", "图片信息"), build=build, texts=texts.TEXTS)
