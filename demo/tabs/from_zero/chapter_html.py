"""Render the HTML that several chapters show: figures, status lines, excerpts of source code."""

from __future__ import annotations

import ast
import base64
import io
import json
import sys
from collections.abc import Callable
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...texts import say
from ...ui.status import status_line

ROOT = Path(__file__).parents[3]  # of this repository


def frames_json(html: str, label: str, frames: list[dict[str, str]], at: int = 0) -> str:
    """Return the value of a `frame_slider`, a component whose HTML changes with a slider, as JSON.

    html: what stands above the slider. An element in it with the attribute data-is="KEY" shows
    the text that the current frame has under KEY; an <img> takes it as its source.
    frames: one dict {KEY: text} for each position of the slider. Its "place" is the text beside the
    slider
    label: the slider's name
    at: the initial position, from 0
    """
    return json.dumps({"html": html, "label": label, "frames": frames, "at": at})


def ready_line(language: str) -> str:
    """Return the HTML status line of a chapter while nothing runs in it, which says "ready"."""
    return status_line("ready", say("ready", language))


def done_line(language: str, seconds: float) -> str:
    """Return the HTML status line that says that a chapter's work, such as drawing, is done.

    seconds: how long it took.
    """
    right = say("seconds", language, seconds=seconds)
    return status_line("done", say("done", language), right, 1.0)


def png_url(image: Image.Image) -> str:
    """Return a picture as a PNG data URL, with its parameters text (infotext) if it has one."""
    chunks, data = PngInfo(), io.BytesIO()
    if "parameters" in image.info:
        chunks.add_text("parameters", image.info["parameters"])
    image.save(data, "PNG", pnginfo=chunks)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def to_grey(
    values: torch.Tensor, low: float | None = None, high: float | None = None
) -> Image.Image:
    """Return a tensor (h, w) as a greyscale picture of w x h pixels.

    low, high: the values that become black and white; None takes the tensor's smallest and largest.
    """
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    scaled = ((values - low) / ((high - low) or 1.0)).clamp(0, 1)
    return Image.fromarray((scaled * 255).round().byte().cpu().numpy(), "L")


def render_figure(source: str, alt: str, caption: str = "", key: str = "", kind: str = "") -> str:
    """Return a picture with a caption as HTML.

    source: a data URL. alt: plain text. caption: HTML. key: for a picture that a `frame_slider`
    changes, the key of its source in the slider's frames; "" for a fixed picture. kind: a CSS
    class.
    """
    changes = f' data-is="{key}"' if key else ""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure class="gb-figure {kind}"><img src="{source}" alt="{escape(alt)}"{changes}>'
        f"{below}</figure>"
    )


def locate(*objects: Callable[..., Any]) -> list[tuple[str, str]]:
    """Return where functions or classes are defined, so that a chapter can show their source.

    One tuple for each: (path in this repository, qualified name such as "Clip.embed_texts").
    """
    files = [Path(sys.modules[obj.__module__].__file__ or "") for obj in objects]
    return [
        (file.relative_to(ROOT).as_posix(), obj.__qualname__)
        for file, obj in zip(files, objects, strict=True)
    ]


@lru_cache
def read_source(path: str, name: str) -> tuple[int, str]:
    """Read the source of a function or class, decorators included, to show it in a chapter.

    Returns (number of its first line, source). path: the file's path in this repository. name: a
    qualified name such as "encode" or "Clip.embed_texts".
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return first, "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def render_excerpt(path: str, name: str) -> str:
    """Return the source code of a function or class as HTML that the reader can unfold.

    path: the file's path in this repository. name: a qualified name such as "Clip.embed_texts".
    """
    line, code = read_source(path, name)
    return (
        f"<details><summary><code>{path}:{line}</code> <b>{escape(name)}</b></summary>"
        f"<pre>{escape(code)}</pre></details>"
    )
