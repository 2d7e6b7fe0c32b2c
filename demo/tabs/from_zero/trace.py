"""Chapter v: every stage of the visitor's own picture, with its shape and its time."""

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
# The page's settings that are used.
SHARED = ("sampler", "schedule", "steps", "cfg", "width", "height", *MODEL_FIELDS)
STEPS = 5  # at most this many are shown
PREVIEW_SIDE = 96  # pixels of a predicted picture
MAX_CHANNELS = 128  # of the context that are shown
LOW, ZERO, HIGH = (58, 110, 165), (244, 241, 236), (200, 110, 43)  # of numbers, as colours


@dataclass(frozen=True)
class Card:
    """A Stage as the page shows it: nothing in it lies on the device or needs a language.

    pictures: data URLs. text: the prompt, or the parameters. rows: of tokens. step: (index, total,
    sigma).
    """

    key: str
    shape: tuple[int, ...]
    seconds: float | None
    pictures: tuple[str, ...] = ()
    text: str = ""
    rows: tuple = ()
    step: tuple = ()


def build(page: Page) -> None:
    """Build the chapter's components and wire them."""
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
    row = chapter_parts.html(elem_id="whole-row")
    chapter_parts.code_excerpts(i18n, *trace.STAGES.values())

    @page.runner.on_device
    def look(task: str, options: Any, names: tuple, folder: str) -> Iterator[Card]:
        """Draw a picture; the arguments are those that server/zerogpu.py needs."""
        for done in trace.stages(page.model_cache.get(*names), options):
            yield make_card(done)

    def draw(run: Run, language: str, text: str, number: str, *values: Any) -> Updates:
        """Draw a picture and show each stage as soon as it is done."""
        yield {status: status_line("running", say("zero_working", language))}
        fields = dict(zip(SHARED, values, strict=True))
        names = tuple(fields.pop(key) for key in MODEL_FIELDS)
        seed = (number or "").strip() or None
        options = GenerateOptions(prompt=text or "", seed=seed, **fields)
        page.model_cache.get(*names)  # opening a model need not hold the device
        cards: list[Card] = []
        shown = 0.0
        work = cast("Generator[Card]", look("generate", options, names, ""))
        with closing(work) as events:
            for done in events:
                cards.append(done)
                run.progress = done
                if done.key == "step" and time.monotonic() - shown < PREVIEW_EVERY:
                    yield None
                    continue
                shown = time.monotonic()
                updates = {row: render_row(cards, language), status: _how_far(cards, language)}
                yield Final(updates) if done.key == "parameters" else updates

    def empty(request: gr.Request) -> str:
        return render_row([], request_language(request))

    gr.on(None, empty, None, row, **UNQUEUED)
    stopping = StopButton(page.runs, "trace", stop, status, stopped_line)
    inputs = [prompt, seed, *(form[name] for name in SHARED)]
    for event in (go.click, prompt.submit, seed.submit):
        stopping.add(event, draw, inputs, [row], **GPU)


def stopped_line(card: Card | None, language: str) -> str:
    """Return the status line of a stopped run. card: its last stage, None before the first."""
    return status_line("stopped", say("zero_stopped" if card else "stopped_early", language))


def make_card(done: trace.Stage) -> Card:
    """Return what the page shows of a stage."""
    made, given = done.output, (done.key, done.shape, done.seconds)
    if done.key in ("prompt", "parameters"):
        return Card(*given, text=made)
    if done.key == "tokens":
        return Card(*given, rows=tuple(made))
    if done.key == "context":
        return Card(*given, pictures=(heat_map(_centred(made[0].numpy())),))
    if done.key == "step":
        seen = made.latents[0].float().cpu().numpy()
        pictures = heat_map(seen[0]), data_url(made.preview, PREVIEW_SIDE)
        return Card(*given, pictures, step=(made.index, made.total, made.sigma))
    if done.key == "picture":
        return Card(*given, pictures=(png_url(made),))
    return Card(*given, pictures=tuple(heat_map(channel) for channel in made[0].numpy()))


def _centred(context: np.ndarray) -> np.ndarray:
    """Return a context (K, E) without the mean of its tokens, which hides their differences."""
    return (context - context.mean(0))[:, :MAX_CHANNELS]


def heat_map(numbers: np.ndarray) -> str:
    """Return values (h, w) as a PNG: blue below 0, orange above, full at 2.5 times their RMS."""
    size = 2.5 * float(np.sqrt((numbers**2).mean())) or 1.0
    share = (numbers / size).clip(-1, 1)[..., None]
    low, zero, high = (np.array(colour, float) for colour in (LOW, ZERO, HIGH))
    pixels = zero + np.where(share < 0, -share * (low - zero), share * (high - zero))
    return png_url(Image.fromarray(pixels.round().astype(np.uint8), "RGB"))


def render_row(cards: list[Card], language: str) -> str:
    """Return the row of stages; a stage that is not done yet is empty, so that nothing moves."""
    done = {card.key: card for card in cards}
    steps = [card for card in cards if card.key == "step"]
    items = []
    for key, (path, _) in trace.STAGES.items():
        here = done.get(key)
        made = select_steps(steps) if key == "step" else here
        body = BODIES[key](made, language) if here else ""
        items.append(_item(key, path, here, body, cards, language))
    return f'<ol class="gb-whole" tabindex="0">{"".join(items)}</ol>'


def select_steps(steps: list[Card]) -> list[Card]:
    """Return at most STEPS cards: the first step, the last, and evenly spaced ones between."""
    if not steps:
        return []
    total = steps[0].step[1]
    picked = {round(place) for place in np.linspace(1, total, min(STEPS, total))}
    return [card for card in steps if card.step[0] in picked]


def _item(key: str, path: str, here, body: str, cards: list[Card], language: str) -> str:
    shape, took = "", ""
    if here:
        shape = say("zero_characters", language, count=here.shape[0])
        if here.key not in ("prompt", "parameters"):
            shape = " × ".join(map(str, here.shape))
        took = _seconds(here.seconds, language)
    if key == "step" and here:
        spent = sum(card.seconds or 0.0 for card in cards if card.key == "step")
        took = say(
            "zero_steps_took", language, count=here.step[1], seconds=_seconds(spent, language)
        )
    if key == "parameters" and here:
        took = say("zero_all_took", language, seconds=_seconds(here.seconds, language))
    code = escape(path).replace("/", "/<wbr>")
    state = "gb-made" if here else "gb-open"
    return (
        f'<li class="{state}" data-stage="{key}"><h4>{say(f"zero_stage_{key}", language)}</h4>'
        f'<div class="gb-body">{body}</div>'
        f'<p class="gb-shape">{shape}</p><p class="gb-took">{took}</p><code>{code}</code></li>'
    )


def _text(here: Card, language: str) -> str:
    return f'<p class="gb-said">{escape(here.text)}</p>'


def _tokens(here: Card, language: str) -> str:
    """Return the ids and names of the text's tokens, and the number of paddings."""
    lines = []
    for row in here.rows:
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


def _heat(here: Card, language: str) -> str:
    alt = say("zero_whole_context_alt", language)
    return f'<img class="gb-heat" src="{here.pictures[0]}" alt="{alt}">'


def _channels(here: Card, language: str) -> str:
    return '<div class="gb-channels">' + "".join(
        f'<img src="{url}" alt="{say("zero_channel", language, number=i)}">'
        for i, url in enumerate(here.pictures, 1)
    ) + "</div>"  # fmt: skip


def _picture(here: Card, language: str) -> str:
    return (
        f'<img class="gb-final" src="{here.pictures[0]}" alt="{say("zero_picture_alt", language)}">'
    )


def _steps(steps: list[Card], language: str) -> str:
    """Return each step's noise level, the first channel of its input, and the predicted x0."""
    alts: dict[str, list[str]] = {"seen": [], "believed": []}
    for i, name in enumerate(alts):
        for here in steps:
            alt = say(f"zero_{name}_alt", language, step=here.step[0])
            alts[name].append(f'<img class="gb-{name}" src="{here.pictures[i]}" alt="{alt}">')
    heads = "".join(f"<b>{here.step[0]}<span>σ {here.step[2]:.2f}</span></b>" for here in steps)
    times = "".join(f"<small>{_seconds(here.seconds, language)}</small>" for here in steps)
    rows = "".join(f"<p>{say(f'zero_{name}', language)}</p>{''.join(alts[name])}" for name in alts)
    return f'<div class="gb-steps" style="--many:{len(steps)}">{heads}{rows}{times}</div>'


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


def _how_far(cards: list[Card], language: str) -> str:
    last = cards[-1]
    if last.key == "parameters":
        return status_line("done", say("done", language), _seconds(last.seconds, language), 1.0)
    steps = [card.step for card in cards if card.step]
    if not steps:
        return status_line("running", say("starting", language))
    index, total, _ = steps[-1]
    what = say("step", language, index=index, total=total)
    return status_line("running", what, share=index / total)
