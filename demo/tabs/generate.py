"""A prompt becomes a picture: fields, the picture step by step, Stop, gallery, parameters."""

from __future__ import annotations

import math
import tempfile
import time
from functools import partial

import gradio as gr

from pipeline.errors import InputError

from .. import backends, chooser, history, plan, prompt_line, reading, stage, switch, vocabulary
from ..api import GPU
from ..texts import language, say
from ..work import FIELDS, Broken, Finished

EXAMPLES = (
    "a red apple on a blue background",
    "蓝色背景上的红苹果",
    "a cat to the left of a rocket on a white background",
    "a fox above a mushroom on a green background",
    "粉色背景上的企鹅",
)
PREVIEW_EVERY = 0.05  # seconds: a fast GPU makes more steps than a browser can show
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
TYPED = ("seed", "clip_skip")  # in text boxes, because an empty number field is sent as 0


def tab(page) -> None:
    """Build the tab inside the page and wire it."""
    i18n, models = page.i18n, page.shelf.first
    defaults = models.defaults
    with gr.Column(elem_id="gb-grid"):
        with gr.Column(elem_id="gb-ask", min_width=0):
            prompt = gr.Textbox(
                label=i18n("prompt"),
                placeholder=i18n("prompt_hint"),
                lines=1,
                max_lines=6,
                elem_id="prompt",
            )
            prompt_view = prompt_line.view("prompt")
            negative = gr.Textbox(
                label=i18n("negative"),
                placeholder=i18n("negative_hint"),
                lines=1,
                max_lines=4,
                elem_id="negative",
            )
            negative_view = prompt_line.view("negative")
            with gr.Row(elem_id="gb-buttons"):
                go = gr.Button(i18n("generate"), variant="primary", elem_id="generate", scale=4)
                stop = gr.Button(i18n("stop"), variant="stop", elem_id="stop", min_width=90)
            gr.Examples(
                [[text] for text in EXAMPLES],
                prompt,
                label=i18n("examples"),
                elem_id="examples",
                api_visibility="private",
            )
        with gr.Column(elem_id="gb-see", min_width=0):
            with gr.Column(elem_id="gb-frame", min_width=0):
                gallery = gr.Gallery(
                    label=i18n("pictures"),
                    show_label=False,
                    container=False,
                    format="png",
                    object_fit="contain",
                    height="100%",
                    columns=4,
                    buttons=["download", "download_all", "fullscreen"],
                    interactive=False,
                    elem_id="gallery",
                )
                view = gr.HTML(stage.idle(i18n("idle")), apply_default_css=False, elem_id="stage")
            status = gr.HTML(
                stage.line("ready", i18n("ready")), apply_default_css=False, elem_id="status"
            )
            parameters = gr.Textbox(
                label=i18n("parameters"),
                info=i18n("parameters_hint"),
                lines=4,
                max_lines=6,
                interactive=False,
                buttons=["copy"],
                elem_id="parameters",
            )
            below = gr.Column(elem_id="history", min_width=0)
        with gr.Column(elem_id="gb-how", min_width=0):
            model = chooser.model(page)
            vae = chooser.vae(page)
            with gr.Row(elem_id="gb-additions"):
                added = {kind: chooser.addition(page, kind) for kind in chooser.TAGS}
            with gr.Row():
                sampler, schedule = plan.dropdowns(i18n, defaults["sampler"], defaults["schedule"])
            with gr.Row():
                steps = _number(i18n, "steps", defaults["steps"])
                cfg = _number(i18n, "cfg", defaults["cfg"], step=0.5)
                count = _number(i18n, "count", 1)
            with gr.Row():
                width = _number(i18n, "width", defaults["width"], step=8)
                height = _number(i18n, "height", defaults["height"], step=8)
            with gr.Row(elem_id="gb-seed"):
                seed = gr.Textbox(
                    label=i18n("seed"),
                    placeholder=i18n("seed_hint"),
                    max_lines=1,
                    elem_id="seed",
                    scale=2,
                    min_width=120,
                )
                randomize = gr.Button(i18n("randomize"), elem_id="randomize", min_width=70)
                reuse = gr.Button(i18n("reuse"), elem_id="reuse", min_width=90)
            with gr.Row(elem_id="gb-reading"):
                clip_skip = gr.Textbox(
                    label=i18n("clip_skip"),
                    info=i18n("clip_skip_hint"),
                    placeholder=i18n("clip_skip_own"),
                    max_lines=1,
                    elem_id="clip_skip",
                    min_width=140,
                )
                cfg_rescale = gr.Number(
                    0,
                    label=i18n("cfg_rescale"),
                    info=i18n("cfg_rescale_hint"),
                    step=0.05,
                    elem_id="cfg_rescale",
                    min_width=140,
                )
            with gr.Row(elem_id="gb-backends"):
                attention = backends.dropdown(i18n, models, "attention")
                group_norm = backends.dropdown(i18n, models, "group_norm")
    last_seed = gr.State()
    last_step = gr.State()
    page.form = dict(
        prompt=prompt,
        negative=negative,
        sampler=sampler,
        schedule=schedule,
        steps=steps,
        cfg=cfg,
        seed=seed,
        width=width,
        height=height,
        count=count,
        clip_skip=clip_skip,
        cfg_rescale=cfg_rescale,
        attention=attention,
        group_norm=group_norm,
        model=model,
        vae=vae,
    )
    knows = vocabulary.panel(i18n, prompt, bool(models.vocabulary))
    page.fill = reading.filler(page, status, switch.wire(page, status, added, knows))
    with below:
        strip = history.panel(page)
    prompt_line.wire(page, prompt, prompt_view)
    prompt_line.wire(page, negative, negative_view)

    def wait(request: gr.Request):
        return stage.line("running", say("waiting", language(request))), None

    def run(request: gr.Request, *values):
        """Streams the picture. A failure keeps what is on the page and says why."""
        tongue = language(request)
        skip = gr.skip()
        yield skip, stage.line("running", say("starting", tongue)), *4 * [skip], None
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                shown = 0.0
                wanted = dict(zip(FIELDS, values, strict=True))
                for key in TYPED:
                    wanted[key] = (wanted[key] or "").strip() or None
                for event in page.paint(wanted, folder):
                    if isinstance(event, Finished):
                        done = stage.done(event, tongue)
                        pictures = _pictures(event.files)
                        text, seed = event.parameters, str(event.seed)
                        made = history.entries(event)
                        yield stage.shown(), done, pictures, text, seed, made, None
                    elif time.monotonic() - shown >= PREVIEW_EVERY:
                        shown = time.monotonic()
                        line = stage.running(event, tongue)
                        yield stage.live(event, tongue), line, *4 * [skip], event
        except (InputError, Broken) as error:
            sentence = str(error) if isinstance(error, InputError) else say("broken", tongue)
            yield skip, stage.error(sentence), *4 * [skip], None
            raise gr.Error(sentence, title=say("error", tongue), print_exception=False) from None

    def halt(step, request: gr.Request):
        return stage.stopped(step, language(request))

    def settle(step, request: gr.Request):
        """Says it again: a step that was already on its way may have come after the first word."""
        time.sleep(0.5)
        return stage.stopped(step, language(request))

    running = gr.on(
        [go.click, prompt.submit, negative.submit],
        wait,
        None,
        [status, last_step],
        queue=False,
        trigger_mode="once",
        **PRIVATE,
    ).then(
        run,
        [page.form[name] for name in FIELDS],
        [view, status, gallery, parameters, last_seed, strip, last_step],
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=status,
        **GPU,
    )
    stop.click(halt, last_step, status, cancels=[running], queue=False, **PRIVATE).then(
        settle, last_step, status, queue=False, **PRIVATE
    )
    randomize.click(lambda: "", None, seed, queue=False, **PRIVATE)
    for kind, box in added.items():
        box.input(partial(chooser.put, kind), [prompt, box], [prompt, box], queue=False, **PRIVATE)
    reuse.click(lambda last: last, last_seed, seed, queue=False, **PRIVATE)


def _pictures(files: list[str]):
    """One picture large, several as tiles that open."""
    columns = math.ceil(math.sqrt(len(files)))
    return gr.update(value=files, columns=columns, selected_index=0 if len(files) == 1 else None)


def _number(i18n, key: str, value, **more) -> gr.Number:
    """A number without limits of its own: GenerateOptions judges it, in one sentence."""
    return gr.Number(value, label=i18n(key), elem_id=key, min_width=80, **more)
