"""The tab Arena: samplers or backends draw the same picture side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from pipeline.introspection import arena
from pipeline.model import Models

from ...page import Page
from ...server.runner import MODEL_FIELDS
from ...texts import request_language, say
from ...ui import stop as stopping
from ...ui.failures import FAILURES, error_sentence, error_toast, hide_internal_errors
from ...ui.listeners import GPU, PRIVATE
from ...ui.status import error_line, idle_frame, status_line
from ...ui.tab import Tab
from . import texts
from .api import SAMPLERS, add_endpoint
from .charts import explain_backends, explain_samplers, render_curves
from .race_events import Entries
from .races import Races

PROMPT, SEED = "a red apple on a blue background", "1"
PRESS = "() => document.querySelector('#arena-go').click()"
FIELDS = ("prompt", "negative", "steps", "cfg", "seed")
SHOW_EVERY, PLOT_EVERY = 0.1, 0.3  # seconds between two updates of the pictures, and of the curves
EMPTY_STEPS = 20  # of the empty plots


def build(page: Page) -> None:
    """Build the tab inside the page and wire it."""
    i18n = page.i18n
    races = Races(page.model_cache, page.runner)

    with gr.Column(elem_id="gb-arena", min_width=0):
        with gr.Column(elem_id="arena-ask", elem_classes="gb-card", min_width=0):
            form = {name: _field(i18n, name) for name in FIELDS[:2]}
            with gr.Row():
                form |= {name: _field(i18n, name) for name in FIELDS[2:]}
            lanes = gr.Dropdown(
                [entry.label for entry in arena.all_entries()],
                value=list(SAMPLERS),
                multiselect=True,
                label=i18n("arena_lanes"),
                info=i18n("arena_lanes_hint"),
                elem_id="arena-lanes",
            )
            with gr.Row(elem_id="arena-buttons"):
                go = gr.Button(i18n("arena_go"), variant="primary", scale=3, elem_id="arena-go")
                stop = gr.Button(i18n("stop"), variant="stop", min_width=90, elem_id="arena-stop")
            backends = gr.Button(i18n("arena_backends"), elem_id="arena-backends")
            gr.HTML(
                f'<p class="gb-note gb-not">{i18n("arena_backends_hint")}</p>',
                apply_default_css=False,
            )
        with gr.Column(elem_id="arena-see", elem_classes="gb-card", min_width=0):
            view = gr.HTML(
                idle_frame(i18n("arena_idle")), apply_default_css=False, elem_id="arena-view"
            )
            status = gr.HTML(
                status_line("ready", i18n("ready")),
                apply_default_css=False,
                elem_id="arena-status",
            )
            files = gr.File(
                label=i18n("arena_files"),
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="arena-files",
            )
    with gr.Column(elem_id="arena-out", elem_classes="gb-card", min_width=0):
        report = gr.HTML(apply_default_css=False, elem_id="arena-report")
        notes = gr.HTML(apply_default_css=False, elem_id="arena-notes")

    def show_empty(request: gr.Request) -> tuple[str, str]:
        language = request_language(request)
        return render_curves((), (), EMPTY_STEPS, language), explain_samplers(language)

    gr.on(None, show_empty, None, [report, notes], queue=False, **PRIVATE)

    def wait(request: gr.Request) -> str:
        return status_line("running", say("waiting", request_language(request)))

    def stream_race(
        entries_of: Callable[[Models], Entries],
        request: gr.Request,
        model: str,
        vae: str,
        *values: str,
    ) -> Iterator[dict[Any, Any]]:
        """Stream a race. A failure keeps what is on the page and says why."""
        language = request_language(request)
        yield {status: status_line("running", say("starting", language))}
        fields = dict(zip(FIELDS, values, strict=True)) | {"model": model, "vae": vae}
        try:
            with hide_internal_errors():
                names, models, options = races.resolve(fields)
                entries = entries_of(models)
            shown = plotted = 0.0
            with closing(races.stream(names, models, options, entries, language)) as views:
                for race in views:
                    now = time.monotonic()
                    if race.finished:
                        yield {
                            view: race.render_lanes(),
                            status: race.done_line(),
                            report: race.render_report(),
                            files: gr.update(value=race.files(), visible=True),
                        }
                    elif not shown:
                        shown = now
                        about = explain_samplers(language)
                        if race.of_backends:
                            about = explain_backends(models, language)
                        yield {
                            view: race.render_lanes(),
                            report: race.render_report(),
                            notes: about,
                            files: gr.update(visible=False),
                        }
                    elif now - shown >= SHOW_EVERY:
                        shown = now
                        updates = {view: race.render_lanes(), status: race.progress_line()}
                        if now - plotted >= PLOT_EVERY:
                            plotted = now
                            updates[report] = race.render_report()
                        yield updates
        except FAILURES as error:
            sentence = error_sentence(error, language)
            yield {status: error_line(sentence)}
            raise error_toast(sentence, language) from None

    def race_samplers(
        request: gr.Request, model: str, vae: str, chosen: list[str] | None, *values: str
    ) -> Iterator[dict[Any, Any]]:
        yield from stream_race(
            lambda models: arena.parse_entries(chosen or ()), request, model, vae, *values
        )

    def race_backends(
        request: gr.Request, model: str, vae: str, *values: str
    ) -> Iterator[dict[Any, Any]]:
        yield from stream_race(arena.backend_pairs, request, model, vae, *values)

    outputs = [view, status, report, notes, files]
    model_and_vae = [page.form[name] for name in MODEL_FIELDS]
    runs = []
    for button, run, more in ((go, race_samplers, [lanes]), (backends, race_backends, [])):
        waiting = button.click(wait, None, status, queue=False, trigger_mode="once", **PRIVATE)
        inputs = [*model_and_vae, *more, *form.values()]
        runs.append(waiting.then(run, inputs, outputs, **PRIVATE, **GPU))

    form["prompt"].submit(None, js=PRESS)

    stopping.wire(stop, status, runs, "arena_stopped")
    add_endpoint(races)


def _field(i18n: gr.I18n, name: str) -> gr.Textbox:
    """Build a text box, for numbers too: an empty number field would be sent as 0."""
    value = {"prompt": PROMPT, "seed": SEED}.get(name, "")
    hints = {"seed": "seed_hint", "steps": "auto_takes", "cfg": "auto_takes"}
    return gr.Textbox(
        value,
        label=i18n(name),
        placeholder=i18n(hints.get(name, f"{name}_hint")),
        lines=1,
        max_lines=4 if name in FIELDS[:2] else 1,
        elem_id=f"arena-{name}",
        min_width=70,
    )


TAB = Tab(title=("Arena", "竞技场"), build=build, texts=texts.TEXTS)
