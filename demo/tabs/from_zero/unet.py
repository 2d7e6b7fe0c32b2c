"""Chapter iii: the UNet, block by block, and a tiny one that learns."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from html import escape
from typing import Any, cast

import gradio as gr
import torch
from PIL import Image

from pipeline.denoising.denoiser import Denoiser
from pipeline.introspection.activations import Activations

from ...page import Page
from ...texts import say
from ...ui.images import data_url
from ...ui.status import status_line
from . import chapter_parts, training
from .chapter_html import done_line, frames_json, locate, png_url, render_figure, to_grey

PROMPT = "a red apple on a blue background"
SIDE = 160  # pixels of a preview
CELL = 96  # pixels of a block's map: any number of its own becomes so many
ROWS = 4  # of the bars that show a vector


def build(page: Page) -> None:
    """Build the chapter's components and wire them."""
    from pipeline.training import tiny
    from pipeline.training.emoji.unet import denoising_loss

    i18n = page.i18n
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(i18n, "zero_u_title", "zero_u_shape", "zero_u_try")
        with gr.Row(elem_classes="gb-ask-row"):
            prompt = gr.Textbox(
                PROMPT,
                label=i18n("prompt"),
                max_lines=1,
                elem_id="zero-u-prompt",
                scale=4,
                min_width=220,
            )
            go = gr.Button(
                i18n("zero_u_draw"), variant="primary", elem_id="zero-u-draw", min_width=120
            )
        status = chapter_parts.status(i18n, "zero-u-status")
        book = chapter_parts.frame_slider("zero-u")
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(
            i18n, "zero_enter_title", "zero_enter_time", "zero_enter_words", "zero_enter_skip"
        )
    training.build_card(page)
    code = Denoiser, Activations, denoising_loss, tiny.TinyUNet, tiny.train
    chapter_parts.code_excerpts(i18n, *locate(*code))
    form = page.form
    inputs = [form[name] for name in ("model", "vae", "steps", "width", "height")]

    @page.runner.on_device
    def stream_frames(
        language: str, name: str, vae: str, count: Any, width: Any, height: Any, words: str
    ) -> Iterator[tuple[str, str, Any]]:
        """Yield (status line, HTML, frame) of each step, then ("", "", the finished picture)."""
        from pipeline.events import Result
        from pipeline.introspection.activations import record_activations
        from pipeline.options import GenerateOptions

        models, html = page.model_cache.get(name, vae), ""
        options = GenerateOptions(prompt=words, steps=count, width=width, height=height)
        steps = cast("Generator[Any]", models.stream(options))
        events = cast("Generator[Any]", record_activations(models, steps))
        try:
            for event, seen in events:
                if isinstance(event, Result):
                    yield "", "", data_url(event.images[0], SIDE)
                    continue
                html = html or _u(seen, models, language)
                right = say("seconds", language, seconds=event.seconds)
                what = say("step", language, index=event.index, total=event.total)
                line = status_line("running", what, right, event.index / event.total)
                yield line, html, _frame(event, seen, models.preview, language)
        finally:
            events.close()

    def draw(language: str, *values: Any) -> Iterator[dict[Any, Any]]:
        """Draw a picture and show the UNet at each step."""
        began, label, whole = time.monotonic(), say("zero_u_step", language), ""
        frames: list[dict[str, str]] = []
        for line, html, frame in stream_frames(language, *values):
            if line:
                whole = html
                frames.append(frame)
                yield {status: line, book: frames_json(html, label, [frame])}
            else:
                frames[-1]["picture"] = frame
        yield {
            status: done_line(language, time.monotonic() - began),
            book: frames_json(whole, label, frames, len(frames) - 1),
        }

    chapter_parts.on_device(go.click, draw, [*inputs, prompt], [book], status)


def _frame(event, seen, preview, language: str) -> dict[str, str]:
    """Return what changes in the drawing of the UNet from step to step."""
    frame = {
        "place": say("step", language, index=event.index, total=event.total),
        "picture": data_url(event.preview, SIDE),
        "latents": data_url(preview.image(event.latents, event.width, event.height), SIDE),
        "waves": _bars(seen.time_proj),
        "time": _bars(seen.time_embedding),
    }
    return frame | {block.name: _map(block.map) for block in seen.blocks}


def _map(values: torch.Tensor) -> str:
    """Return a map (h, w) of a block's activity, each value enlarged to a square."""
    image = to_grey(values)
    scale = max(1, CELL // max(image.size))
    return png_url(
        image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    )


def _bars(vector: torch.Tensor) -> str:
    """Return a vector as one row of greys, 0 in the middle."""
    limit = float(vector.abs().max()) or 1.0
    return png_url(to_grey(vector.repeat(ROWS, 1), -limit, limit))


def _u(seen, models, language: str) -> str:
    """Return the drawing of the UNet with its shapes: down blocks on the left, up blocks on the
    right, the timestep's embedding above."""
    blocks = {side: [b for b in seen.blocks if b.side == side] for side in _SIDES}
    down = [*blocks["in"], *blocks["down"]]
    up = [*blocks["up"], *blocks["out"]][::-1]
    rows = ""
    for level, (left, right) in enumerate(zip(down, up, strict=True)):
        shapes = ", ".join(_shape(skip) for skip in right.skips)
        across = say("zero_u_skips", language, count=len(right.skips)) if shapes else ""
        rows += (
            f"{_block(left, language, level)}"
            f'<div class="gb-skip" title="{shapes}"><span>{across}</span></div>'
            f"{_block(right, language, level)}"
        )
    middle = "".join(_block(block, language) for block in blocks["mid"])
    ends = [
        render_figure(_BLANK, say(f"zero_u_{key}", language), say(f"zero_u_{key}", language), key)
        for key in ("latents", "picture")
    ]
    vectors = {"waves": seen.time_proj, "time": seen.time_embedding}
    words = {k: say(f"zero_u_{k}", language, count=len(vector)) for k, vector in vectors.items()}
    moment = "".join(
        f"<i>→</i>{render_figure(_BLANK, said, said, key)}" for key, said in words.items()
    )
    size = sum(p.numel() for p in models.unet.parameters())
    told = say("zero_u_size", language, count=size)
    return (
        f'<p class="gb-note gb-told" id="zero-u-size">{told}</p>'
        f'<div class="gb-moment"><b>t</b>{moment}</div>'
        f'<div class="gb-u">{ends[0]}<i></i>{ends[1]}{rows}<div class="gb-mid">{middle}</div></div>'
    )


def _block(block, language: str, level: int = 0) -> str:
    """Return a block: its name, the shape of its output, its inputs, a map of its activity."""
    tags = ""
    if block.side in ("down", "mid", "up"):
        tags += f'<span class="gb-tag-t">{say("zero_u_hears_time", language)}</span>'
    if block.attends:
        (places, wide), (keys, _) = block.attends
        heard = say("zero_u_hears_words", language, places=places, wide=wide, keys=keys)
        tags += f'<span class="gb-tag-w">{heard}</span>'
    alt = say("zero_u_active", language, name=block.name)
    return (
        f'<div class="gb-block gb-{block.side}" style="--level:{level}">'
        f'<img src="{_BLANK}" alt="{escape(alt)}" data-is="{block.name}">'
        f"<div><b>{block.name}</b><code>{_shape(block.shape)}</code>{tags}</div></div>"
    )


def _shape(sizes: Any) -> str:
    return " × ".join(map(str, sizes))


_SIDES = ("in", "down", "mid", "up", "out")
_BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
