"""Chapter ii: what a sentence is to a network, and how it came to mean a picture."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from pipeline.errors import InputError
from pipeline.introspection.clip import Clip, contrastive_loss, has_clip, probabilities
from pipeline.prompt.encode import encode_prompts

from ...page import Page
from ...texts import request_language, say
from ...ui.images import data_url
from ...ui.listeners import UNQUEUED
from ...ui.status import error_line
from ...ui.upload import PictureBox
from . import chapter_parts as parts
from .chapter_html import done_line, locate, png_url, ready_line, render_figure, to_grey

SENTENCES = (
    "a red apple on a blue background",
    "蓝色背景上的红苹果",
    "a penguin on a yellow background",
    "白色背景上的猫",
)
EMBEDDED = "emoji"  # the model whose image tower ships with it
MOST, MOST_LETTERS = 6, 300  # sentences, and letters of one
STEPS = 10  # enough to see what it is
SIDE = 128  # pixels of a picture that is shown as it is
_loading = threading.Lock()


@dataclass(frozen=True)
class Seen:
    """Pictures in the table: their vectors (M, E) and sources for the page.

    folder: the model whose towers saw them. heard: the width of the loaded model's context. drawn:
    how many were drawn from the sentences, in their order; the visitor's own comes last.
    """

    folder: str
    heard: int
    sources: tuple[str, ...] = ()
    drawn: int = 0
    vectors: Any = None

    def with_picture(self, path: str, *, own: bool = False) -> Seen:
        """One more, from a file."""
        from pipeline.images.open import fit_image, open_picture

        image = open_picture(path).image
        side = min(*image.size, SIDE)
        vector = _towers(self.folder).embed_pictures([image])
        vectors = vector if self.vectors is None else torch.cat([self.vectors, vector])
        small = image.size == (side, side)
        source = png_url(image) if small else data_url(fit_image(image, side, side), side)
        drawn = self.drawn + (not own)
        return replace(self, sources=(*self.sources, source), drawn=drawn, vectors=vectors)


def build(page: Page) -> None:
    """Build the chapter's components and wire them."""
    from pipeline.training.emoji.clip import make_trainer

    i18n = page.i18n
    with gr.Column(elem_classes="gb-card", min_width=0):
        parts.prose(i18n, "zero_towers_title", "zero_towers_two", "zero_towers_try")
        with gr.Row(elem_classes="gb-try"):
            box = gr.Textbox(
                "\n".join(SENTENCES),
                label=i18n("zero_sentences"),
                info=i18n("zero_sentences_hint"),
                lines=5,
                max_lines=MOST,
                elem_id="zero-sentences",
                scale=2,
            )
            own = PictureBox(
                label=i18n("zero_own_column"),
                placeholder=i18n("picture_drop"),
                sources=["upload", "clipboard"],
                height=176,
                elem_id="zero-column",
                elem_classes="gb-picture",
            )
        draw = gr.Button(i18n("zero_draw_all"), variant="primary", elem_id="zero-draw-all")
        status = parts.status(i18n, "zero-words-status")
        table = parts.html(elem_id="zero-similar")
        parts.prose(i18n, "zero_towers_read")
    with gr.Column(elem_classes="gb-card", min_width=0):
        parts.prose(i18n, "zero_loss_title", "zero_loss_pairs", "zero_loss_rows")
        loss = parts.html(elem_id="zero-loss")
    with gr.Column(elem_classes="gb-card", min_width=0):
        parts.prose(i18n, "zero_context_title", "zero_context_heard")
        context = parts.html(elem_id="zero-context")
        parts.prose(i18n, "zero_context_next")
    parts.code_excerpts(i18n, *locate(Clip, contrastive_loss, make_trainer, encode_prompts))
    known, views = gr.State(None), [table, loss, context]
    model = [page.form["model"], page.form["vae"]]

    def shown(seen: Seen, lines: list[str], language: str) -> dict:
        towers = _towers(seen.folder)
        similar = towers.embed_texts(lines) @ seen.vectors.T
        made = (
            _flow(towers, lines[0], language)
            + _table(seen, lines, similar, towers.scale, language),
            _loss(seen, similar, towers.scale, language),
            _context(towers, lines[0], seen.heard, language),
        )
        return dict(zip(views, made, strict=True))

    def draw_all(language: str, name, vae, words, path):
        began, lines = time.monotonic(), sentences(words, language)
        loaded = page.model_cache.get(name, vae)
        name, models = with_towers(page.model_cache, name)
        heard = sum(tower.width for tower in loaded.text.encoders)
        seen = Seen(str(models.path), heard)
        with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
            for line in lines:
                fields = {"model": name, "prompt": line, "steps": STEPS}
                made = yield from parts.draw(page, fields, folder, language, status)
                seen = seen.with_picture(made.files[0])
                yield {known: seen, **shown(seen, lines, language)}
        if path:
            seen = seen.with_picture(path, own=True)
            yield {known: seen, **shown(seen, lines, language)}
        yield {status: done_line(language, time.monotonic() - began)}

    def type_on(seen: Seen | None, words: str, request: gr.Request):
        """The same pictures, other sentences."""
        language = request_language(request)
        if seen is None:
            return {status: ready_line(language)}
        try:
            lines = sentences(words, language)
        except InputError as error:
            return {status: error_line(str(error))}
        return {status: ready_line(language), **shown(seen, lines, language)}

    parts.on_device(draw.click, draw_all, [*model, box, own], [known, *views], status)
    box.change(type_on, [known, box], [status, *views], trigger_mode="always_last", **UNQUEUED)


def with_towers(model_cache, name) -> tuple[str, Any]:
    """(name, models) of the chosen model where it has both towers, else of the embedded one."""
    models = model_cache.get(name, None)
    if has_clip(models.path):
        return name, models
    return EMBEDDED, model_cache.get(EMBEDDED, None)


@lru_cache(maxsize=2)
def _loaded(folder: str) -> Clip:
    return Clip.load(Path(folder))


def _towers(folder: str) -> Clip:
    with _loading:
        return _loaded(folder)


def sentences(words: str, language: str) -> list[str]:
    """The lines that say something; InputError where they are too many or too long."""
    lines = [line.strip() for line in (words or "").splitlines() if line.strip()]
    if not 2 <= len(lines) <= MOST or max(map(len, lines)) > MOST_LETTERS:
        raise InputError(say("zero_most", language, most=MOST, letters=MOST_LETTERS))
    return lines


def _flow(towers: Clip, line: str, language: str) -> str:
    """The two towers: what enters each, how high it is, and what leaves it."""
    text, image = towers.text.config, towers.image.config
    ways = (
        say(
            "zero_text_tower",
            language,
            tokens=len(towers.tokens(line)),
            layers=text.num_hidden_layers,
            width=towers.width,
        ),
        say(
            "zero_image_tower",
            language,
            patches=(image.image_size // image.patch_size) ** 2,
            side=image.patch_size,
            layers=image.num_hidden_layers,
            width=towers.width,
        ),
    )
    rows = ""
    for way in ways:
        stages = "<i>→</i>".join(f"<span>{part}</span>" for part in way.split(" → "))
        rows += f'<p class="gb-tower">{stages}</p>'
    return f'<div class="gb-towers">{rows}</div>'


def _table(seen: Seen, lines: list[str], similar, scale: float, language: str) -> str:
    """Rows are sentences, columns pictures; how alike they are, and which picture it would be."""
    chances = probabilities(similar, scale)
    heads = "".join(
        f'<th scope="col"><img src="{source}" alt="{escape(_called(seen, i, language))}"></th>'
        for i, source in enumerate(seen.sources)
    )
    rows = ""
    for i, line in enumerate(lines):
        cells = ""
        for j, (value, chance) in enumerate(
            zip(similar[i].tolist(), chances[i].tolist(), strict=True)
        ):
            best = ' class="gb-best"' if j == int(chances[i].argmax()) else ""
            cells += (
                f'<td{best} style="--by:{max(value, 0):.3f}">'
                f"<b>{value:.3f}</b><small>{chance:.1%}</small></td>"
            )
        rows += f'<tr><th scope="row">{escape(line)}</th>{cells}</tr>'
    caption = say("zero_table", language)
    return (
        f'<div class="gb-scroll"><table class="gb-similar"><caption>{caption}</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _called(seen: Seen, number: int, language: str) -> str:
    """The words for a column's picture."""
    if number >= seen.drawn:
        return say("zero_own_column", language)
    return say("zero_drawn_column", language, number=number + 1)


def _loss(seen: Seen, similar, scale: float, language: str) -> str:
    """The loss of the pairs that stand on the diagonal, once every sentence has its picture."""
    count = seen.drawn
    if count < 2 or len(similar) != count:
        return f'<p class="gb-note gb-told">{say("zero_no_loss", language)}</p>'
    pairs = similar[:, :count]
    told = say(
        "zero_loss_now",
        language,
        loss=contrastive_loss(pairs, scale),
        guess=math.log(count),
        count=count,
    )
    formula = (
        '<p class="gb-formula">loss = ½ · mean<sub>i</sub> ( −log p(picture<sub>i</sub> | text'
        "<sub>i</sub>) − log p(text<sub>i</sub> | picture<sub>i</sub>) )</p>"
        '<p class="gb-formula">p(picture<sub>j</sub> | text<sub>i</sub>) = exp(τ s<sub>ij</sub>) / '
        f"Σ<sub>k</sub> exp(τ s<sub>ik</sub>), &nbsp; τ = {scale:.2f}</p>"
    )
    return f'{formula}<p class="gb-note gb-told" id="zero-loss-now">{told}</p>'


def _context(towers: Clip, line: str, heard: int, language: str) -> str:
    """The pieces of a sentence, and all numbers that the UNet hears of it, as a picture."""
    states = towers.context(line)
    limit = float(states.abs().max())
    picture = png_url(to_grey(states[0], -limit, limit))
    pieces = "".join(f"<li>{escape(piece)}</li>" for piece in towers.tokens(line))
    shape = "1 × {} × {}".format(*states.shape[1:])
    told = say("zero_context_shape", language, shape=shape, count=states.numel(), heard=heard)
    alt = say("zero_context_alt", language, line=line)
    return (
        f'<ol class="gb-pieces">{pieces}</ol>{render_figure(picture, alt, kind="gb-context")}'
        f'<p class="gb-note gb-told" id="zero-context-shape">{told}</p>'
    )
