"""Gradio components and event listeners that several chapters use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from ...events import Finished
from ...page import Page
from ...server.visitors import identify
from ...texts import request_language, say
from ...ui.failures import FAILURES, error_sentence, hide_internal_errors
from ...ui.listeners import GPU, PRIVATE
from ...ui.refusal import show_refusal
from ...ui.status import error_line, progress_line, status_line
from .chapter_html import render_excerpt

SLIDER_SCRIPT = Path(__file__).with_name("frame_slider.js").read_text(encoding="utf-8")


def prose(i18n: gr.I18n, *keys: str) -> None:
    """Add a column of paragraphs and headings to a chapter.

    keys: the keys in demo.texts.TEXTS of their texts; a key that ends in "_title" gives a heading.
    Each paragraph is a component of its own, because Gradio translates one text per component.
    """
    with gr.Column(elem_classes="gb-prose", min_width=0):
        for key in keys:
            tag, kind = ("h3", "gb-title") if key.endswith("_title") else ("p", "gb-note")
            html(f'<{tag} class="{kind}">{i18n(key)}</{tag}>')


def html(value: str = "", **more: Any) -> gr.HTML:
    """Add an HTML component without Gradio's own styles. more: further arguments of gr.HTML."""
    return gr.HTML(value, apply_default_css=False, **more)


def code_excerpts(i18n: gr.I18n, *rows: tuple[str, str]) -> gr.HTML:
    """Add the source code that a chapter explains, which the reader can unfold.

    rows: a tuple for each excerpt: (path of a file in this repository, qualified name of a function
    or class in it, such as "Clip.embed_texts").
    """
    items = "".join(render_excerpt(*row) for row in rows)
    title = f'<h3 class="gb-title">{i18n("zero_places")}</h3>'
    return html(title + items, elem_classes="gb-places")


def status(i18n: gr.I18n, elem_id: str) -> gr.HTML:
    """Add a chapter's status line, which at first says that the chapter is ready; return it."""
    return html(status_line("ready", i18n("ready")), elem_id=elem_id, elem_classes="gb-zero-status")


def frame_slider(elem_id: str) -> gr.HTML:
    """Add a component in which a slider chooses what the HTML above it shows, such as a step.

    It is empty until an update gives it a value made by `frames_json`: JSON with the HTML and, for
    each position of the slider, the texts and pictures to put into it. frame_slider.js renders it
    in the browser.
    """
    return gr.HTML(
        "",
        html_template='<div class="gb-book"></div><label class="gb-turn"><span></span>'
        '<input type="range" min="0" max="0" value="0"><output></output></label>',
        js_on_load=SLIDER_SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
    )


def on_device(
    page: Page,
    event: Callable[..., Dependency],
    work: Callable[..., Iterator[dict[Any, Any]]],
    inputs: list[Component],
    outputs: list[Component],
    status: gr.HTML,
) -> Dependency:
    """Let an event such as `button.click` start a chapter's work on the server's device.

    work(language, *values of inputs, visitor=id of the visitor) yields updates {component: new
    value} of `outputs` and `status`. An InputError or an internal error becomes one sentence in
    the status line `status`. Where the request may not wait for the device, the status line says so
    and offers to try again. Returns Gradio's listener.
    """

    def run(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        language = request_language(request)
        yield {status: status_line("running", say("zero_working", language))}
        try:
            with hide_internal_errors():
                yield from work(language, *values, visitor=identify(request))
        except FAILURES as error:
            yield {status: error_line(error_sentence(error, language))}

    running = event(run, inputs, [*outputs, status], **PRIVATE, **GPU)
    show_refusal(running, page.runs.refusals, status)
    return running


def draw(
    page: Page,
    fields: dict[str, Any],
    folder: str,
    language: str,
    status: gr.HTML,
    visitor: str,
) -> Generator[dict[Any, Any], None, Finished]:
    """Draw a picture as the tab Generate does, for a chapter that then shows more about it.

    Yields updates of the status line `status` and returns the Finished event, which names the PNG
    file in `folder`. fields: options of the task "generate" by name, and "model" and "vae"; None
    takes the default. visitor: the id of the visitor, whose own LoRAs the prompt may name.
    """
    options = {name: value for name, value in fields.items() if value is not None}
    for event in page.runner.stream(options, folder, visitor=visitor):
        if isinstance(event, Finished):
            return event
        yield {status: progress_line(event, language)}
    raise RuntimeError("nothing was drawn")
