"""Chapter ii: how CLIP compares sentences with pictures, and the context that the UNet gets."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from pipeline.errors import InputError
from pipeline.introspection.clip import Clip, contrastive_loss, has_clip, probabilities
from pipeline.model import Models
from pipeline.model_cache import ModelCache
from pipeline.prompt.encode import encode_prompts

from ...page import Page
from ...server.temp_folder import request_folder
from ...texts import request_language, say
from ...ui.failures import error_sentence
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
EMBEDDED = "emoji"  # the model that comes with this repository; it has CLIP's image encoder, too
MAX_SENTENCES, MAX_LETTERS = 6, 300  # letters: of each sentence
STEPS = 10  # of each picture: enough to recognise it
SIDE = 128  # pixels: a square picture up to this side is shown without loss
_loading = threading.Lock()


@dataclass(frozen=True)
class Pictures:
    """The pictures that CLIP compares with the visitor's sentences, one for each column of a table.

    folder         the folder of the model whose CLIP computed `vectors`
    context_width  the last dimension of the context of the model that the visitor has chosen
    sources        the pictures as data URLs
    drawn          how many were drawn, one for each sentence in order; a picture of the visitor's
                   own comes after them
    vectors        the CLIP embeddings (M, E) of the M pictures, unit vectors; None without pictures
    """

    folder: str
    context_width: int
    sources: tuple[str, ...] = ()
    drawn: int = 0
    vectors: torch.Tensor | None = None

    def with_picture(self, path: str, *, own: bool = False) -> Pictures:
        """Return a copy with one more picture, read from `path` and embedded by CLIP.

        own: whether it is the visitor's own picture, not one drawn from a sentence.
        """
        from pipeline.images.open import fit_image, open_picture

        image = open_picture(path).image
        side = min(*image.size, SIDE)
        vector = _clip(self.folder).embed_pictures([image])
        vectors = vector if self.vectors is None else torch.cat([self.vectors, vector])
        small = image.size == (side, side)
        source = png_url(image) if small else data_url(fit_image(image, side, side), side)
        drawn = self.drawn + (not own)
        return replace(self, sources=(*self.sources, source), drawn=drawn, vectors=vectors)


def build(page: Page) -> None:
    """Build the chapter on CLIP: how it compares sentences with pictures, and the UNet's context.

    Adds its components to the page that is being built, and attaches their listeners.
    """
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
                max_lines=MAX_SENTENCES,
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
    current, views = gr.State(None), [table, loss, context]
    model = [page.form["model"], page.form["vae"]]

    def render_views(pictures: Pictures, lines: list[str], language: str) -> dict[Any, Any]:
        clip = _clip(pictures.folder)
        assert pictures.vectors is not None  # there is a picture
        similarities = clip.embed_texts(lines) @ pictures.vectors.T
        values = (
            _render_towers(clip, lines[0], language)
            + _render_table(pictures, lines, similarities, clip.scale, language),
            _render_loss(pictures, similarities, clip.scale, language),
            _render_context(clip, lines[0], pictures.context_width, language),
        )
        return dict(zip(views, values, strict=True))

    def draw_all(
        language: str,
        name: str | None,
        vae: str | None,
        text: str,
        path: str | None,
        visitor: str,
    ) -> Iterator[dict[Any, Any]]:
        """Draw a picture of each sentence and yield updates of the table after each.

        path: the visitor's own picture, which becomes the last column; None without one.
        """
        began, lines = time.monotonic(), sentences(text, language)
        loaded = page.model_cache.get(name, vae)
        name, models = model_with_clip(page.model_cache, name)
        width = sum(encoder.width for encoder in loaded.text.encoders)
        pictures = Pictures(str(models.path), width)
        with request_folder() as folder:
            for line in lines:
                fields = {"model": name, "prompt": line, "steps": STEPS}
                finished = yield from parts.draw(page, fields, folder, language, status, visitor)
                pictures = pictures.with_picture(finished.files[0])
                yield {current: pictures, **render_views(pictures, lines, language)}
        if path:
            pictures = pictures.with_picture(path, own=True)
            yield {current: pictures, **render_views(pictures, lines, language)}
        yield {status: done_line(language, time.monotonic() - began)}

    def compare_again(pictures: Pictures | None, text: str, request: gr.Request) -> dict[Any, Any]:
        """Return updates that compare the existing pictures with the edited sentences."""
        language = request_language(request)
        if pictures is None:
            return {status: ready_line(language)}
        try:
            lines = sentences(text, language)
        except InputError as error:
            return {status: error_line(error_sentence(error, language))}
        return {status: ready_line(language), **render_views(pictures, lines, language)}

    parts.on_device(page, draw.click, draw_all, [*model, box, own], [current, *views], status)
    box.change(
        compare_again, [current, box], [status, *views], trigger_mode="always_last", **UNQUEUED
    )


def model_with_clip(model_cache: ModelCache, name: str | None) -> tuple[str | None, Models]:
    """Return (name, model) of a model whose folder has CLIP's image encoder, to embed pictures.

    It is the model `name` if that has the encoder, else the model "emoji", which comes with this
    repository. A name of None, given or returned, stands for the server's first model.
    """
    models = model_cache.get(name, None)
    if has_clip(models.path):
        return name, models
    return EMBEDDED, model_cache.get(EMBEDDED, None)


@lru_cache(maxsize=2)
def _loaded(folder: str) -> Clip:
    return Clip.load(Path(folder))


def _clip(folder: str) -> Clip:
    with _loading:
        return _loaded(folder)


def sentences(text: str, language: str) -> list[str]:
    """Return the sentences to compare with pictures: the lines of `text` that are not empty.

    Raises InputError for fewer than 2 or more than MAX_SENTENCES of them, and for one of more than
    MAX_LETTERS letters. language: of the error sentence, "en" or "zh".
    """
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    if not 2 <= len(lines) <= MAX_SENTENCES or max(map(len, lines)) > MAX_LETTERS:
        raise InputError(say("zero_most", language, most=MAX_SENTENCES, letters=MAX_LETTERS))
    return lines


def _render_towers(clip: Clip, line: str, language: str) -> str:
    """Return a sketch of CLIP's two encoders as HTML: input, number of layers and width of each.

    line: the sentence whose tokens are counted as the text encoder's input.
    """
    text, image = clip.text.config, clip.image.config
    towers = (
        say(
            "zero_text_tower",
            language,
            tokens=len(clip.tokens(line)),
            layers=text.num_hidden_layers,
            width=clip.width,
        ),
        say(
            "zero_image_tower",
            language,
            patches=(image.image_size // image.patch_size) ** 2,
            side=image.patch_size,
            layers=image.num_hidden_layers,
            width=clip.width,
        ),
    )
    rows = ""
    for tower in towers:
        stages = "<i>→</i>".join(f"<span>{part}</span>" for part in tower.split(" → "))
        rows += f'<p class="gb-tower">{stages}</p>'
    return f'<div class="gb-towers">{rows}</div>'


def _render_table(
    pictures: Pictures,
    lines: list[str],
    similarities: torch.Tensor,
    scale: float,
    language: str,
) -> str:
    """Return a table of sentences (rows) and pictures (columns) as HTML, as CLIP compares them.

    Each cell has the cosine similarity, and the probability of the picture given the sentence, a
    softmax over the row. lines: the N sentences. similarities: (N, M) for M pictures. scale: 1 over
    CLIP's temperature.
    """
    chances = probabilities(similarities, scale)
    heads = "".join(
        f'<th scope="col"><img src="{source}" alt="{_picture_label(pictures, i, language)}"></th>'
        for i, source in enumerate(pictures.sources)
    )
    rows = ""
    for i, line in enumerate(lines):
        cells = ""
        for j, (value, chance) in enumerate(
            zip(similarities[i].tolist(), chances[i].tolist(), strict=True)
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


def _picture_label(pictures: Pictures, number: int, language: str) -> str:
    """Return the alt text, escaped for HTML, of a picture that heads a column of CLIP's table.

    The table compares sentences (rows) with pictures (columns). The text tells whether the picture
    was drawn from a sentence or is the visitor's own. pictures: those of the table. number: the
    picture's column, from 0.
    """
    if number >= pictures.drawn:
        return escape(say("zero_own_column", language))
    return escape(say("zero_drawn_column", language, number=number + 1))


def _render_loss(
    pictures: Pictures, similarities: torch.Tensor, scale: float, language: str
) -> str:
    """Return CLIP's contrastive loss of the sentences and their drawn pictures as HTML.

    similarities: (N, M), cosine similarities of N sentences and M pictures. scale: 1 over CLIP's
    temperature. Unless each sentence has a drawn picture, the HTML is a hint to draw them.
    """
    count = pictures.drawn
    if count < 2 or len(similarities) != count:
        return f'<p class="gb-note gb-told">{say("zero_no_loss", language)}</p>'
    pairs = similarities[:, :count]
    text = say(
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
    return f'{formula}<p class="gb-note gb-told" id="zero-loss-now">{text}</p>'


def _render_context(clip: Clip, line: str, width: int, language: str) -> str:
    """Return a sentence's tokens and its context, which the UNet attends to, as HTML.

    The context (1, 77, hidden) of the text encoder `clip` is shown as a grey picture. width: the
    last dimension of the context of the model that the visitor has chosen, which may be another
    one.
    """
    states = clip.context(line)
    limit = float(states.abs().max())
    picture = png_url(to_grey(states[0], -limit, limit))
    pieces = "".join(f"<li>{escape(piece)}</li>" for piece in clip.tokens(line))
    shape = "1 × {} × {}".format(*states.shape[1:])
    text = say("zero_context_shape", language, shape=shape, count=states.numel(), width=width)
    alt = say("zero_context_alt", language, line=line)
    return (
        f'<ol class="gb-pieces">{pieces}</ol>{render_figure(picture, alt, kind="gb-context")}'
        f'<p class="gb-note gb-told" id="zero-context-shape">{text}</p>'
    )
