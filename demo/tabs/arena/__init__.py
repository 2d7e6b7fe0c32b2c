"""Samplers and backends racing side by side."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing

import gradio as gr

from pipeline.introspection import arena as pipeline_arena
from pipeline.lru import LruCache
from pipeline.options import GenerateOptions

from ...page import Page
from ...server.runner import MODEL_FIELDS
from ...server.runs import Run
from ...texts import request_language, say
from ...ui.failures import (
    hide_internal_errors,
    raise_client_errors,
)
from ...ui.listeners import GPU, PRIVATE
from ...ui.status import idle_frame, status_line
from ...ui.stop import Final, StopButton, Updates
from ...ui.tab import Tab
from . import texts
from . import view as arena

PROMPT, SEED = "a red apple on a blue background", "1"
LANES = ("Euler a", "DDIM", "DPM++ 2M", "UniPC")
PRESS = "() => document.querySelector('#arena-go').click()"
FIELDS = ("prompt", "negative", "steps", "cfg", "seed")
SHOW_EVERY, PLOT_EVERY = 0.1, 0.3  # seconds between two pictures of the race, and of its curves
MAX_REFERENCES = 32  # reference latents of earlier races that are kept, by pipeline_arena.key
References = LruCache[tuple, pipeline_arena.Reference]


def build(page: Page) -> None:
    """Build the tab inside the page and wire it."""
    i18n, model_cache = page.i18n, page.model_cache
    references: References = LruCache(MAX_REFERENCES)

    @page.runner.on_device
    def compete(task: str, options, names: tuple, folder: str, given: tuple, reference):
        models = model_cache.get(*names)
        if isinstance(given[0], pipeline_arena.Rival):
            events = pipeline_arena.race_backends(models, options, given)
        else:
            events = pipeline_arena.race(models, options, given, reference)
        yield from arena.news(events, folder, given)

    with gr.Column(elem_id="gb-arena", min_width=0):
        with gr.Column(elem_id="arena-ask", elem_classes="gb-card", min_width=0):
            form = {name: _field(i18n, name) for name in FIELDS[:2]}
            with gr.Row():
                form |= {name: _field(i18n, name) for name in FIELDS[2:]}
            lanes = gr.Dropdown(
                [lane.label for lane in pipeline_arena.every()],
                value=list(LANES),
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

    def idle(request: gr.Request):
        language = request_language(request)
        return arena.curves((), (), 20, language), arena.said(language)

    gr.on(None, idle, None, [report, notes], queue=False, **PRIVATE)

    def race(given_of, run: Run, language: str, model, vae, *values) -> Updates:
        """Streams a race. given_of(models): who races; a failure keeps what is on the page."""
        yield {status: status_line("running", say("starting", language))}
        fields = dict(zip(FIELDS, values, strict=True)) | {"model": model, "vae": vae}
        names, models, options = asked(model_cache, fields)
        given = given_of(models)
        size = options.width, options.height
        board = arena.Board(given, options.steps, size, language)
        key, reference = None, None
        if not board.backends:
            key = pipeline_arena.key(models, options)
            reference = references.get(key)
        if reference is not None:
            board.know(reference)
        pictured = plotted = 0.0
        with (
            tempfile.TemporaryDirectory(prefix="glassbox-") as folder,
            closing(compete("arena", options, names, folder, given, reference)) as events,
        ):
            explained = arena.said(language)
            if board.backends:
                explained = arena.said_of_backends(models, language)
            first = {view: board.lanes(), report: board.report(), notes: explained}
            yield first | {files: gr.update(visible=False)}
            for news in events:
                board.take(news)
                run.progress = board
                if isinstance(news.event, pipeline_arena.Reference):
                    references.put(key, news.event)
                now = time.monotonic()
                if now - pictured < SHOW_EVERY:
                    yield None
                    continue
                pictured = now
                updates = {view: board.lanes(), status: board.running()}
                if now - plotted >= PLOT_EVERY:
                    plotted = now
                    updates[report] = board.report()
                yield updates
            made = [track.file for track in board.tracks if track.file]
            yield Final(
                {
                    view: board.lanes(),
                    status: board.done(),
                    report: board.report(),
                    files: gr.update(value=made, visible=True),
                }
            )

    def race_samplers(run: Run, language: str, model, vae, chosen, *values) -> Updates:
        def lanes_of(models):
            return pipeline_arena.lanes(chosen or ())

        return race(lanes_of, run, language, model, vae, *values)

    def race_backends(run: Run, language: str, model, vae, *values) -> Updates:
        return race(pipeline_arena.rivals, run, language, model, vae, *values)

    stopping = StopButton(page.runs, "arena", stop, status, stopped_line)
    outputs = [view, report, notes, files]
    who = [page.form[name] for name in MODEL_FIELDS]
    stopping.add(go.click, race_samplers, [*who, lanes, *form.values()], outputs, **GPU)
    stopping.add(backends.click, race_backends, [*who, *form.values()], outputs, **GPU)

    form["prompt"].submit(None, js=PRESS)

    _endpoint(model_cache, references, compete)


def stopped_line(board: arena.Board | None, language: str) -> str:
    """Return the status line of a race that was stopped. board: None before its first step."""
    return status_line("stopped", say("arena_stopped" if board else "stopped_early", language))


def asked(model_cache, fields: dict) -> tuple[tuple, object, GenerateOptions]:
    """The model's names, the model, and settled options; empty fields are the model's own."""
    given = {}
    for name, value in fields.items():
        value = value.strip() if isinstance(value, str) else value
        if name not in MODEL_FIELDS and value not in (None, ""):
            given[name] = value
    options = GenerateOptions(**given)
    names = tuple(fields.get(name) or None for name in MODEL_FIELDS)
    models = model_cache.get(*names)
    return names, models, pipeline_arena.settled(models, options)


def _field(i18n, name: str) -> gr.Textbox:
    """Text, or a number that may be left out: an empty number field would be sent as 0."""
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


def _endpoint(model_cache, references: References, compete) -> None:
    """`/race`, for clients and MCP."""

    def race(
        prompt: str,
        lanes: str = ", ".join(LANES),
        negative: str = "",
        steps: float | None = None,
        cfg: float | None = None,
        seed: float | None = None,
        width: float | None = None,
        height: float | None = None,
        model: str | None = None,
        vae: str | None = None,
    ):
        """Let samplers race from one noise, each against a reference of 200 steps.

        Args:
            prompt: What the pictures show; may be empty.
            lanes: Two to six samplers, each with a schedule or without: Euler a, DPM++ 2M Karras.
            negative: What they shall not show.
            steps: Steps of each sampler; left out: what suits the model.
            cfg: Guidance scale; left out: what suits the model.
            seed: The seed that all have in common; left out: a random one.
            width: Pixels; left out: what suits the model.
            height: Pixels; left out: what suits the model.
            model: A name of the page's models; the first one if left out.
            vae: A name of the page's autoencoders; the model's own if left out.

        Returns:
            The pictures as PNG files that hold their parameters; and for each lane its noise
            levels, and after each model call its distance to the reference.
        """
        fields = dict(prompt=prompt, negative=negative, steps=steps, cfg=cfg, seed=seed)
        fields |= dict(width=width, height=height, model=model, vae=vae)
        with raise_client_errors():
            with hide_internal_errors():
                given = pipeline_arena.lanes(filter(None, map(str.strip, lanes.split(","))))
                names, models, options = asked(model_cache, fields)
                key = pipeline_arena.key(models, options)
                reference = references.get(key)
            board = arena.Board(given, options.steps, (options.width, options.height), "en")
            with (
                tempfile.TemporaryDirectory(prefix="glassbox-") as folder,
                closing(compete("arena", options, names, folder, given, reference)) as events,
            ):
                told = 0.0
                for news in events:
                    board.take(news)
                    if isinstance(news.event, pipeline_arena.Reference):
                        references.put(key, news.event)
                    if time.monotonic() - told >= SHOW_EVERY:
                        told = time.monotonic()
                        yield [], {}  # so that a cancelled or lost client stops the work
                yield [track.file for track in board.tracks], board.told()

    with gr.Row(visible=False):
        inputs = [gr.Textbox(label="prompt"), gr.Textbox(", ".join(LANES), label="lanes")]
        inputs += [gr.Textbox("", label="negative")]
        inputs += [gr.Number(None, label=n) for n in ("steps", "cfg", "seed", "width", "height")]
        inputs += [gr.Textbox(None, label=n) for n in MODEL_FIELDS]
        outputs = [gr.Gallery(label="pictures", format="png"), gr.JSON(label="lanes")]
        gr.Button().click(race, inputs, outputs, api_name="race", **GPU)


TAB = Tab(title=("Arena", "竞技场"), build=build, texts=texts.TEXTS)
