"""The tab Look inside: replay how a picture was drawn, and branch off from any of its steps.

It shows each model call of a recorded picture and the cross-attention maps of the prompt's words. A
branch is the picture drawn again from one of its steps on with other options; a picture, its
branches and their branches are a tree. The viewer itself is inside.js.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from pipeline.samplers import SAMPLERS, unsupported

from ...page import Page
from ...ui.listeners import GPU, PRIVATE, UNQUEUED
from ...ui.refusal import show_refusal
from ...ui.status import idle_frame, status_line, stopped_line
from ...ui.stop import StopButton
from ...ui.tab import Tab
from . import texts
from .frame_server import FrameServer
from .handlers import CHANGES, InsideHandlers

SCRIPT = Path(__file__).with_name("inside.js").read_text(encoding="utf-8")


def build(page: Page) -> None:
    """Build the tab Look inside: it replays how a picture was drawn, and branches off from a step.

    Adds its components to the page that is being built, and attaches their listeners.
    """
    i18n = page.i18n
    with gr.Column(elem_id="gb-inside", min_width=0):
        with gr.Column(elem_id="inside-see", elem_classes="gb-card", min_width=0):
            empty, example, viewer = _view(page)
        with gr.Column(elem_id="inside-do", min_width=0):
            with gr.Column(elem_classes="gb-card", min_width=0):
                status = gr.HTML(
                    status_line("ready", i18n("inside_ready")),
                    apply_default_css=False,
                    elem_id="inside-status",
                )
                again = gr.Button(i18n("inside_again"), visible=False, elem_id="inside-again")
            with gr.Column(elem_id="inside-branch", elem_classes="gb-card", min_width=0):
                form, go, stop = _branch(i18n)
            with gr.Column(elem_id="inside-files", elem_classes="gb-card", min_width=0):
                export, load, exported = _files(i18n)
    handlers = InsideHandlers(page, empty, viewer, status, again, exported, form)
    tree, opened, outputs = handlers.tree, handlers.opened, handlers.outputs
    gallery_state = [page.result.records, page.result.chosen, tree]
    page.inside_button.click(
        handlers.open_selected, gallery_state, [page.tabs, *outputs], **UNQUEUED
    )
    page.panels["inside"].select(
        handlers.open_newest, [*gallery_state, opened], outputs, **UNQUEUED
    )
    viewer.select(handlers.open_node, tree, outputs, **UNQUEUED)
    viewer.gone(handlers.show_evicted, tree, outputs, **UNQUEUED)
    viewer.moved(handlers.set_step, None, form["at"], **UNQUEUED)
    changes = [form[name] for name in CHANGES]
    stopping = StopButton(page.runs, "inside", stop, status, stopped_line)
    outputs_of_runs = [component for component in outputs if component is not status]
    for event, draw, inputs in (
        (go.click, handlers.draw_branch, [tree, opened, form["at"], *changes]),
        (again.click, handlers.redraw, [tree, opened]),
        (example.click, handlers.draw_example, [page.form[n] for n in handlers.field_names]),
    ):
        stopping.add(event, draw, inputs, outputs_of_runs, **GPU)
    exporting = export.click(handlers.export_tree, tree, exported, **PRIVATE)
    show_refusal(exporting, page.runs.refusals, status)
    load.upload(handlers.import_tree, load, outputs, **UNQUEUED)


def _view(page: Page) -> tuple[gr.Column, gr.Button, gr.HTML]:
    """Add the viewer that replays how a picture was drawn, and a hint for while none is open.

    Returns (column with the hint, hidden once a picture is open; the button in it that draws an
    example; the viewer).
    """
    i18n, frames = page.i18n, FrameServer(page.model_cache, page.runner.recordings)

    def frame(query: Any) -> dict[str, str]:
        return frames.frame(query)

    def maps(query: Any) -> dict[str, Any]:
        return frames.maps(query)

    with gr.Column(elem_id="inside-empty", min_width=0) as empty:
        gr.HTML(idle_frame(i18n("inside_idle")), apply_default_css=False)
        example = gr.Button(i18n("inside_example"), variant="primary", elem_id="inside-example")
        gr.HTML(
            f'<p class="gb-note gb-not">{i18n("inside_example_hint")}</p>',
            apply_default_css=False,
        )
    viewer = gr.HTML(
        "",
        html_template='<div class="gbi"></div>',
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id="inside-viewer",
        server_functions=[frame, maps],
    )
    return empty, example, viewer


def _branch(i18n: gr.I18n) -> tuple[dict[str, Any], gr.Button, gr.Button]:
    """Add the card that draws a branch of the open picture: again from one step on, with changes.

    Returns (inputs by name, button that draws the branch, its Stop button).
    """
    for tag, name in (("h2", "inside_branch"), ("p", "inside_branch_hint")):
        kind = "gb-title" if tag == "h2" else "gb-note gb-not"
        gr.HTML(f'<{tag} class="{kind}">{i18n(name)}</{tag}>', apply_default_css=False)
    form = _form(i18n)
    with gr.Row(elem_id="inside-buttons"):
        go = gr.Button(i18n("inside_go"), variant="primary", scale=4, elem_id="inside-go")
        stop = gr.Button(i18n("stop"), variant="stop", min_width=90, elem_id="inside-stop")
    return form, go, stop


def _files(i18n: gr.I18n) -> tuple[gr.Button, gr.UploadButton, gr.File]:
    """Add the buttons that export and import a picture with all of its branches (a tree).

    Returns (export button, import button, field that offers the exported file).
    """
    with gr.Row():
        export = gr.Button(i18n("inside_export"), size="sm", elem_id="inside-export", min_width=120)
        load = gr.UploadButton(
            i18n("inside_import"),  # type: ignore[arg-type]  # Gradio translates it
            size="sm",
            file_types=[".safetensors"],
            elem_id="inside-import",
            min_width=120,
        )
    exported = gr.File(
        label=i18n("inside_file"), visible=False, interactive=False, elem_id="inside-file"
    )
    return export, load, exported


def _form(i18n: gr.I18n) -> dict[str, Any]:
    """Add the inputs of a branch (the open picture drawn again from one step on, with changes).

    Returns the components by name: "at" is the first step that is drawn again; "prompt",
    "negative", "sampler", "cfg" and "noise_seed" are the options that can be changed. They set no
    limits, because GenerateOptions checks the values.
    """
    form: dict[str, Any] = {
        "at": gr.Number(label=i18n("inside_at"), precision=0, elem_id="inside-at", min_width=90),
        "prompt": gr.Textbox(
            label=i18n("inside_prompt"), lines=1, max_lines=4, elem_id="inside-prompt"
        ),
        "negative": gr.Textbox(
            label=i18n("inside_negative"), lines=1, max_lines=3, elem_id="inside-negative"
        ),
    }
    with gr.Row():
        form["sampler"] = gr.Dropdown(
            [(s.label, key) for key, s in SAMPLERS.items() if not unsupported(key)],
            value=None,
            label=i18n("inside_sampler"),
            elem_id="inside-sampler",
            min_width=140,
        )
        form["cfg"] = gr.Number(
            label=i18n("inside_cfg"), step=0.5, elem_id="inside-cfg", min_width=90
        )
    form["noise_seed"] = gr.Textbox(
        label=i18n("inside_noise_seed"),
        info=i18n("inside_noise_seed_hint"),
        max_lines=1,
        elem_id="inside-noise-seed",
    )
    return form


TAB = Tab(title=("Look inside", "看内部"), build=build, texts=texts.TEXTS)
