"""The tab Arena: samplers, or backends, draw the same picture side by side and are compared.

Samplers start from one noise and are compared by their distance to an exact solution (see
pipeline/introspection/arena.py); backends are compared by speed and by how much pixels differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import gradio as gr

from pipeline.introspection import arena
from pipeline.model import Models

from ...page import Page
from ...server.runner import MODEL_FIELDS
from ...server.runs import Run
from ...texts import request_language, say
from ...ui.listeners import GPU, PRIVATE
from ...ui.status import idle_frame, status_line
from ...ui.stop import Final, StopButton, Updates
from ...ui.tab import Tab
from . import texts
from .api import SAMPLERS, add_endpoint
from .charts import explain_backends, explain_samplers, render_curves
from .race_events import Entries
from .race_view import RaceView
from .races import Races

PROMPT, SEED = "a red apple on a blue background", "1"
PRESS = "() => document.querySelector('#arena-go').click()"
FIELDS = ("prompt", "negative", "steps", "cfg", "seed")
SHOW_EVERY, PLOT_EVERY = 0.1, 0.3  # seconds between two updates of the pictures, and of the curves
EMPTY_STEPS = 20  # how many steps the axes of the empty plots show


def build(page: Page) -> None:
    """Build the tab Arena, where samplers or backends draw the same picture side by side.

    Adds its components to the page that is being built, and attaches their listeners.
    """
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

    def stream_race(
        entries_of: Callable[[Models], Entries],
        run: Run,
        language: str,
        model: str,
        vae: str,
        *values: str,
    ) -> Updates:
        """Run a race between the entries that `entries_of(models)` returns; yield updates.

        model, vae: their names in the model cache. values: what the visitor typed into the text
        boxes of FIELDS, in that order.
        """
        yield {status: status_line("running", say("starting", language))}
        fields = dict(zip(FIELDS, values, strict=True)) | {"model": model, "vae": vae}
        names, models, options = races.resolve(fields, run.visitor)
        entries = entries_of(models)
        shown = plotted = 0.0
        with closing(races.stream(names, models, options, entries, language)) as views:
            race = next(views)
            about = explain_samplers(language)
            if race.of_backends:
                about = explain_backends(models, language)
            first = {view: race.render_lanes(), report: race.render_report(), notes: about}
            yield first | {files: gr.update(visible=False)}
            for race in views:
                run.progress = race
                now = time.monotonic()
                if race.finished:
                    yield Final(
                        {
                            view: race.render_lanes(),
                            status: race.done_line(),
                            report: race.render_report(),
                            files: gr.update(value=race.files(), visible=True),
                        }
                    )
                elif now - shown >= SHOW_EVERY:
                    shown = now
                    updates = {view: race.render_lanes(), status: race.progress_line()}
                    if now - plotted >= PLOT_EVERY:
                        plotted = now
                        updates[report] = race.render_report()
                    yield updates
                else:
                    yield None

    def race_samplers(
        run: Run, language: str, model: str, vae: str, chosen: list[str] | None, *values: str
    ) -> Updates:
        def entries_of(models: Models) -> Entries:
            return arena.parse_entries(chosen or ())

        return stream_race(entries_of, run, language, model, vae, *values)

    def race_backends(run: Run, language: str, model: str, vae: str, *values: str) -> Updates:
        return stream_race(arena.backend_pairs, run, language, model, vae, *values)

    stop_button = StopButton(page.runs, "arena", stop, status, stopped_line)
    outputs = [view, report, notes, files]
    model_and_vae = [page.form[name] for name in MODEL_FIELDS]
    shared = [*form.values()]
    stop_button.add(go.click, race_samplers, [*model_and_vae, lanes, *shared], outputs, **GPU)
    stop_button.add(backends.click, race_backends, [*model_and_vae, *shared], outputs, **GPU)
    form["prompt"].submit(None, js=PRESS)
    add_endpoint(races)


def stopped_line(race: RaceView | None, language: str) -> str:
    """Return the HTML status line of a race that the visitor has stopped.

    In a race, samplers or backends draw the same picture side by side. race: its state when it was
    stopped; None if it had not begun.
    """
    return status_line("stopped", say("arena_stopped" if race else "stopped_early", language))


def _field(i18n: gr.I18n, name: str) -> gr.Textbox:
    """Add the text box of the option `name` ("prompt", "steps", ...) to the tab, and return it.

    Numbers have a text box too, because Gradio sends an empty number field as 0.
    """
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
