"""Chapter v: draw a picture and show what each stage of the pipeline produced, its shape and time.

The stages come from pipeline/introspection/trace.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from html import escape
from typing import Any, cast

import gradio as gr
import numpy as np
from PIL import Image

from pipeline.introspection import trace
from pipeline.options import GenerateOptions

from ...page import Page
from ...server.runner import MODEL_FIELDS
from ...server.runs import Run
from ...texts import request_language, say
from ...ui.images import data_url
from ...ui.listeners import GPU, UNQUEUED
from ...ui.status import status_line
from ...ui.stop import Final, StopButton, Updates
from ...workspace.run import PREVIEW_EVERY
from . import chapter_parts
from .chapter_html import png_url

INITIAL = {"prompt": "a red apple on a blue background", "seed": "1"}
# The shared settings of the page that this chapter uses, too.
SHARED = ("sampler", "schedule", "steps", "cfg", "width", "height", *MODEL_FIELDS)
STEPS = 5  # sampling steps that are shown at most
PREVIEW_SIDE = 96  # pixels: the longer side of a preview of x0
MAX_CHANNELS = 128  # channels of the context that are shown
LOW, ZERO, HIGH = (58, 110, 165), (244, 241, 236), (200, 110, 43)  # RGB of values in a heat map


@dataclass(frozen=True)
class Card:
    """What the page shows of one stage of drawing a picture, such as the text encoder's context.

    It holds no tensors and no translated text.

    key       the stage's key in trace.STAGES, such as "context" or "step"
    shape     the shape of the stage's output; (number of characters,) for a text
    seconds   how long the stage took; None if that was not measured
    pictures  the output as pictures, data URLs
    text      the prompt or the parameters text (infotext), for the stages whose output it is
    rows      of the stage "tokens": for each chunk of the prompt a list of (token id, token)
    step      of a sampling step: (index from 1, number of steps, sigma)
    """

    key: str
    shape: tuple[int, ...]
    seconds: float | None
    pictures: tuple[str, ...] = ()
    text: str = ""
    rows: tuple[list[tuple[int, str]], ...] = ()
    step: tuple[Any, ...] = ()


def build(page: Page) -> None:
    """Build the chapter that draws a picture and shows the output of each stage of the pipeline.

    Adds its components to the page that is being built, and attaches their listeners.
    """
    i18n, form = page.i18n, page.form
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(i18n, "zero_whole_head_title", "zero_whole_lead", "zero_whole_try")
        with gr.Row(elem_classes="gb-tries"):
            prompt = gr.Textbox(
                INITIAL["prompt"],
                label=i18n("prompt"),
                max_lines=3,
                elem_id="whole-prompt",
                scale=4,
                min_width=240,
            )
            seed = gr.Textbox(
                INITIAL["seed"],
                label=i18n("seed"),
                placeholder=i18n("seed_hint"),
                max_lines=1,
                elem_id="whole-seed",
                min_width=110,
            )
            go = gr.Button(
                i18n("zero_draw"), variant="primary", elem_id="whole-draw", scale=0, min_width=130
            )
            stop = gr.Button(
                i18n("stop"), variant="stop", elem_id="whole-stop", scale=0, min_width=80
            )
        status = chapter_parts.status(i18n, "whole-status")
    stages_view = chapter_parts.html(elem_id="whole-row")
    chapter_parts.code_excerpts(i18n, *trace.STAGES.values())

    @page.runner.on_device
    def stream_cards(task: str, options: Any, names: tuple, folder: str) -> Iterator[Card]:
        """Draw a picture and yield a Card for each stage.

        names: the arguments of ModelCache.get. server/zerogpu.py estimates
        the seconds of GPU time from these four arguments; task and folder have no other use.
        """
        for stage in trace.stages(page.model_cache.get(*names), options):
            yield make_card(stage)

    def draw(run: Run, language: str, text: str, seed_text: str, *values: Any) -> Updates:
        """Draw a picture and yield updates that show each stage as soon as it is done.

        text: the prompt. seed_text: the seed, "" for a random one. values: those of the settings
        SHARED, in that order.
        """
        yield {status: status_line("running", say("zero_working", language))}
        fields = dict(zip(SHARED, values, strict=True))
        names = page.runner.names({key: fields.pop(key) for key in MODEL_FIELDS}, run.visitor)
        seed = (seed_text or "").strip() or None
        options = GenerateOptions(prompt=text or "", seed=seed, **fields)
        page.model_cache.get(*names)  # opening a model need not hold the device
        cards: list[Card] = []
        last_update = 0.0
        work = cast("Generator[Card]", stream_cards("generate", options, names, ""))
        with closing(work) as events:
            for card in events:
                cards.append(card)
                run.progress = card
                if card.key == "step" and time.monotonic() - last_update < PREVIEW_EVERY:
                    yield None
                    continue
                last_update = time.monotonic()
                updates = {
                    stages_view: render_row(cards, language),
                    status: _progress_line(cards, language),
                }
                yield Final(updates) if card.key == "parameters" else updates

    def empty(request: gr.Request) -> str:
        return render_row([], request_language(request))

    gr.on(None, empty, None, stages_view, **UNQUEUED)
    stopping = StopButton(page.runs, "trace", stop, status, stopped_line)
    inputs = [prompt, seed, *(form[name] for name in SHARED)]
    for event in (go.click, prompt.submit, seed.submit):
        stopping.add(event, draw, inputs, [stages_view], **GPU)


def stopped_line(card: Card | None, language: str) -> str:
    """Return the HTML status line of a drawing that the visitor has stopped.

    card: the last stage that was done; None if it was stopped before the first.
    """
    return status_line("stopped", say("zero_stopped" if card else "stopped_early", language))


def make_card(stage: trace.Stage) -> Card:
    """Return what the page shows of one stage of the pipeline, such as the context or a step.

    Tensors become heat maps; these and pictures become data URLs.
    """
    output, common = stage.output, (stage.key, stage.shape, stage.seconds)
    if stage.key in ("prompt", "parameters"):
        return Card(*common, text=output)
    if stage.key == "tokens":
        return Card(*common, rows=tuple(output))
    if stage.key == "context":
        return Card(*common, pictures=(heat_map(_centred(output[0].numpy())),))
    if stage.key == "step":
        channels = output.latents[0].float().cpu().numpy()
        pictures = heat_map(channels[0]), data_url(output.preview, PREVIEW_SIDE)
        return Card(*common, pictures, step=(output.index, output.total, output.sigma))
    if stage.key == "picture":
        return Card(*common, pictures=(png_url(output),))
    return Card(*common, pictures=tuple(heat_map(channel) for channel in output[0].numpy()))


def _centred(context: np.ndarray) -> np.ndarray:
    """Return the text encoder's context (K, E) minus its mean over the K tokens, for a heat map.

    The mean would hide the differences between tokens. Only the first MAX_CHANNELS of the E
    channels are kept.
    """
    return (context - context.mean(0))[:, :MAX_CHANNELS]


def heat_map(numbers: np.ndarray) -> str:
    """Return values (h, w) as a PNG data URL of w x h pixels: blue below 0, orange above 0.

    The colours saturate at 2.5 times the root mean square of the values.
    """
    size = 2.5 * float(np.sqrt((numbers**2).mean())) or 1.0
    share = (numbers / size).clip(-1, 1)[..., None]
    low, zero, high = (np.array(colour, float) for colour in (LOW, ZERO, HIGH))
    pixels = zero + np.where(share < 0, -share * (low - zero), share * (high - zero))
    return png_url(Image.fromarray(pixels.round().astype(np.uint8), "RGB"))


def render_row(cards: list[Card], language: str) -> str:
    """Return all stages of drawing a picture as one row of HTML boxes, from prompt to PNG text.

    cards: of the stages done so far, in order, among them one for each sampling step. The box of a
    stage that is not done is empty.
    """
    by_key = {card.key: card for card in cards}
    steps = [card for card in cards if card.key == "step"]
    items = []
    for key, (path, _) in trace.STAGES.items():
        card = by_key.get(key)
        content = select_steps(steps) if key == "step" else card
        body = BODIES[key](content, language) if card else ""
        items.append(_item(key, path, card, body, cards, language))
    return f'<ol class="gb-whole" tabindex="0">{"".join(items)}</ol>'


def select_steps(steps: list[Card]) -> list[Card]:
    """Select the sampling steps that the page shows, at most STEPS, as one box has to hold them.

    They are the first step, the last, and evenly spaced ones between. steps: the Cards (what the
    page shows of a stage) of all steps done so far, in order. Returns those of the selected steps.
    """
    if not steps:
        return []
    total = steps[0].step[1]
    selected = {round(index) for index in np.linspace(1, total, min(STEPS, total))}
    return [card for card in steps if card.step[0] in selected]


def _item(
    key: str, path: str, card: Card | None, body: str, cards: list[Card], language: str
) -> str:
    """Return the box of one stage of drawing a picture as an HTML list item.

    key: the stage's key in trace.STAGES. path: the file of its code. card: what the page shows of
    it, None while it is not done. body: its output as HTML. cards: of all stages so far, for the
    total time of the steps.
    """
    shape, duration = "", ""
    if card:
        shape = say("zero_characters", language, count=card.shape[0])
        if card.key not in ("prompt", "parameters"):
            shape = " × ".join(map(str, card.shape))
        duration = _seconds(card.seconds, language)
    if key == "step" and card:
        total_seconds = sum(c.seconds or 0.0 for c in cards if c.key == "step")
        duration = say(
            "zero_steps_took",
            language,
            count=card.step[1],
            seconds=_seconds(total_seconds, language),
        )
    if key == "parameters" and card:
        duration = say("zero_all_took", language, seconds=_seconds(card.seconds, language))
    code = escape(path).replace("/", "/<wbr>")
    state = "gb-made" if card else "gb-open"
    return (
        f'<li class="{state}" data-stage="{key}"><h4>{say(f"zero_stage_{key}", language)}</h4>'
        f'<div class="gb-body">{body}</div>'
        f'<p class="gb-shape">{shape}</p><p class="gb-took">{duration}</p><code>{code}</code></li>'
    )


def _text(card: Card, language: str) -> str:
    return f'<p class="gb-said">{escape(card.text)}</p>'


def _tokens(card: Card, language: str) -> str:
    """Return an HTML list of the prompt's CLIP tokens with their ids.

    The padding tokens of each chunk of 77 are not listed, only counted. card: what the page knows
    of the stage "tokens"; its `rows` holds the tokens.
    """
    lines = []
    for row in card.rows:
        last = row[-1][0]
        real = next((i for i, (token, _) in enumerate(row) if i and token == last), len(row) - 1)
        lines += [
            f"<li><b>{token}</b> {escape(name.removesuffix('</w>'))}</li>"
            for token, name in row[: real + 1]
        ]
        more = len(row) - real - 1
        if more:
            lines.append(f"<li><i>{say('zero_padding', language, count=more)}</i></li>")
    return f'<ul class="gb-ids">{"".join(lines)}</ul>'


def _heat(card: Card, language: str) -> str:
    alt = say("zero_whole_context_alt", language)
    return f'<img class="gb-heat" src="{card.pictures[0]}" alt="{alt}">'


def _channels(card: Card, language: str) -> str:
    return '<div class="gb-channels">' + "".join(
        f'<img src="{url}" alt="{say("zero_channel", language, number=i)}">'
        for i, url in enumerate(card.pictures, 1)
    ) + "</div>"  # fmt: skip


def _picture(card: Card, language: str) -> str:
    return (
        f'<img class="gb-final" src="{card.pictures[0]}" alt="{say("zero_picture_alt", language)}">'
    )


def _steps(steps: list[Card], language: str) -> str:
    """Return sampling steps as HTML, each with sigma, first latent channel, predicted x0 and time.

    steps: the steps to show, each as a Card that `make_card` has made: its numbers, and its
    pictures as data URLs.
    """
    images: dict[str, list[str]] = {"seen": [], "believed": []}
    for i, name in enumerate(images):
        for card in steps:
            alt = say(f"zero_{name}_alt", language, step=card.step[0])
            images[name].append(f'<img class="gb-{name}" src="{card.pictures[i]}" alt="{alt}">')
    heads = "".join(f"<b>{card.step[0]}<span>σ {card.step[2]:.2f}</span></b>" for card in steps)
    times = "".join(f"<small>{_seconds(card.seconds, language)}</small>" for card in steps)
    rows = "".join(
        f"<p>{say(f'zero_{name}', language)}</p>{''.join(images[name])}" for name in images
    )
    return f'<div class="gb-steps" style="--many:{len(steps)}">{heads}{rows}{times}</div>'


# By key of the stage: the function that renders its Card (of "step": a list of Cards) as HTML.
BODIES: dict[str, Callable[[Any, str], str]] = {
    "prompt": _text,
    "tokens": _tokens,
    "context": _heat,
    "noise": _channels,
    "step": _steps,
    "latents": _channels,
    "picture": _picture,
    "parameters": _text,
}


def _seconds(seconds: float | None, language: str) -> str:
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return say("zero_milliseconds", language, count=f"{1000 * seconds:.3g}")
    return say("zero_seconds", language, count=f"{seconds:.2f}")


def _progress_line(cards: list[Card], language: str) -> str:
    last = cards[-1]
    if last.key == "parameters":
        return status_line("done", say("done", language), _seconds(last.seconds, language), 1.0)
    steps = [card.step for card in cards if card.step]
    if not steps:
        return status_line("running", say("starting", language))
    index, total, _ = steps[-1]
    what = say("step", language, index=index, total=total)
    return status_line("running", what, share=index / total)
