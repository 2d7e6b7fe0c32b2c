"""Chapter iii: the UNet block by block while it draws a picture, and the training of a tiny one."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from html import escape
from typing import Any, cast

import gradio as gr
import torch
from PIL import Image

from pipeline.denoising.denoiser import Denoiser
from pipeline.events import Step
from pipeline.introspection.activations import Activations, Block
from pipeline.latents.preview import Preview
from pipeline.model import Models
from pipeline.options import GenerateOptions

from ...page import Page
from ...texts import say
from ...ui.images import data_url
from ...ui.status import status_line
from . import chapter_parts, training
from .chapter_html import done_line, frames_json, locate, png_url, render_figure, to_grey

PROMPT = "a red apple on a blue background"
SIDE = 160  # pixels: the longer side of the previews
CELL = 96  # pixels: the side to which a block's activation map is enlarged, about
ROWS = 4  # pixels: the height of the picture of a vector


def build(page: Page) -> None:
    """Build the chapter that shows the UNet's blocks while it draws, and trains a tiny UNet.

    Adds its components to the page that is being built, and attaches their listeners.
    """
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
        slider = chapter_parts.frame_slider("zero-u")
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
        task: str, options: GenerateOptions, names: tuple[Any, ...], folder: str, language: str
    ) -> Iterator[tuple[str, str, Any]]:
        """Draw a picture: yield (status line, drawing of the UNet, frame) after each model call.

        The drawing is HTML, the frame a dict for `frames_json`. Last comes ("", "", data URL of the
        finished picture). names: the arguments of ModelCache.get. task and folder have no use but
        their place in the order of a drawing's arguments, see server/zerogpu.py.
        """
        from pipeline.events import Result
        from pipeline.introspection.activations import record_activations

        models, html = page.model_cache.get(*names), ""
        stream = cast("Generator[Any]", models.stream(options))
        events = cast("Generator[Any]", record_activations(models, stream))
        try:
            for event, activations in events:
                if isinstance(event, Result):
                    yield "", "", data_url(event.images[0], SIDE)
                    continue
                html = html or _render_unet(activations, models, language)
                right = say("seconds", language, seconds=event.seconds)
                what = say("step", language, index=event.index, total=event.total)
                line = status_line("running", what, right, event.index / event.total)
                yield line, html, _frame(event, activations, models.preview, language)
        finally:
            events.close()

    def draw(
        language: str,
        name: str,
        vae: str,
        steps: Any,
        width: Any,
        height: Any,
        text: str,
        visitor: str,
    ) -> Iterator[dict[Any, Any]]:
        """Draw a picture; yield updates that show the UNet at each step, then all steps."""
        names = page.runner.names({"model": name, "vae": vae}, visitor)
        options = GenerateOptions(prompt=text, steps=steps, width=width, height=height)
        began, label, drawing = time.monotonic(), say("zero_u_step", language), ""
        frames: list[dict[str, str]] = []
        for line, html, frame in stream_frames("generate", options, names, "", language):
            if line:
                drawing = html
                frames.append(frame)
                yield {status: line, slider: frames_json(html, label, [frame])}
            else:
                frames[-1]["picture"] = frame
        yield {
            status: done_line(language, time.monotonic() - began),
            slider: frames_json(drawing, label, frames, len(frames) - 1),
        }

    chapter_parts.on_device(page, go.click, draw, [*inputs, prompt], [slider], status)


def _frame(
    event: Step, activations: Activations, preview: Preview, language: str
) -> dict[str, str]:
    """Return what the drawing of the UNet shows of one sampling step, as a frame for `frames_json`.

    A frame is one position of the slider over all steps. It is a dict of pictures as data URLs:
    "latents", "picture" (the predicted x0), "waves" and "time" (vectors of the timestep), and under
    each block's name its activation map. "place" is the step's number as text.
    """
    frame = {
        "place": say("step", language, index=event.index, total=event.total),
        "picture": data_url(event.preview, SIDE),
        "latents": data_url(preview.image(event.latents, event.width, event.height), SIDE),
    }
    frame |= {key: _bars(vector) for key, vector in _time_vectors(activations).items()}
    return frame | {block.name: _map(block.map) for block in activations.blocks}


def _time_vectors(activations: Activations) -> dict[str, torch.Tensor]:
    """Return the two vectors by which the UNet knows the timestep, to draw them.

    They are "waves", the sinusoidal embedding, and "time", what the UNet's MLP makes of it.
    """
    assert activations.time_proj is not None and activations.time_embedding is not None
    return {"waves": activations.time_proj, "time": activations.time_embedding}


def _map(values: torch.Tensor) -> str:
    """Return a block's activation map (h, w) as a greyscale PNG data URL, about CELL pixels a side.

    Each value becomes a square; the smallest value is black, the largest white.
    """
    image = to_grey(values)
    scale = max(1, CELL // max(image.size))
    return png_url(
        image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    )


def _bars(vector: torch.Tensor) -> str:
    """Return a vector (N,) as a greyscale PNG data URL of N x ROWS pixels; 0 is mid-grey."""
    limit = float(vector.abs().max()) or 1.0
    return png_url(to_grey(vector.repeat(ROWS, 1), -limit, limit))


def _render_unet(activations: Activations, models: Models, language: str) -> str:
    """Return a drawing of the UNet as HTML, with the shape of each block's output.

    Down blocks stand on the left, up blocks on the right, the middle block below, the timestep's
    embedding above. The pictures in it (activation maps, latents) are empty: `_frame` returns those
    of each sampling step.
    """
    blocks = {side: [b for b in activations.blocks if b.side == side] for side in _SIDES}
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
    captions = {
        key: say(f"zero_u_{key}", language, count=len(vector))
        for key, vector in _time_vectors(activations).items()
    }
    embedding = "".join(
        f"<i>→</i>{render_figure(_BLANK, caption, caption, key)}"
        for key, caption in captions.items()
    )
    size = sum(p.numel() for p in models.unet.parameters())
    note = say("zero_u_size", language, count=size)
    return (
        f'<p class="gb-note gb-told" id="zero-u-size">{note}</p>'
        f'<div class="gb-moment"><b>t</b>{embedding}</div>'
        f'<div class="gb-u">{ends[0]}<i></i>{ends[1]}{rows}<div class="gb-mid">{middle}</div></div>'
    )


def _block(block: Block, language: str, level: int = 0) -> str:
    """Return one block of the UNet as HTML: its name, output shape, inputs, empty activation map.

    level: the block's row in the drawing of the UNet, from 0 at the top.
    """
    tags = ""
    if block.side in ("down", "mid", "up"):
        tags += f'<span class="gb-tag-t">{say("zero_u_hears_time", language)}</span>'
    if block.attends:
        (queries, width), (keys, _) = block.attends
        shapes = say("zero_u_hears_words", language, places=queries, wide=width, keys=keys)
        tags += f'<span class="gb-tag-w">{shapes}</span>'
    alt = say("zero_u_active", language, name=block.name)
    return (
        f'<div class="gb-block gb-{block.side}" style="--level:{level}">'
        f'<img src="{_BLANK}" alt="{escape(alt)}" data-is="{block.name}">'
        f"<div><b>{block.name}</b><code>{_shape(block.shape)}</code>{tags}</div></div>"
    )


def _shape(sizes: Any) -> str:
    return " × ".join(map(str, sizes))


_SIDES = ("in", "down", "mid", "up", "out")  # values of Block.side, in the order of the UNet
# A transparent GIF of one pixel.
_BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
