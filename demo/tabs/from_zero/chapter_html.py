"""HTML that several chapters show: figures, inline pictures, status lines, excerpts of code."""

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

ROOT = Path(__file__).parents[3]


def frames_json(html: str, label: str, frames: list[dict[str, str]], at: int = 0) -> str:
    """Return the value of a `frame_slider`.

    frames: what changes at each place of the slider, by its data-is attribute; "place" stands
    beside the slider. at: the place at first.
    """
    return json.dumps({"html": html, "label": label, "frames": frames, "at": at})


def ready_line(language: str) -> str:
    """Return the status line before anything was drawn."""
    return status_line("ready", say("ready", language))


def done_line(language: str, seconds: float) -> str:
    """Return the status line after the work."""
    right = say("seconds", language, seconds=seconds)
    return status_line("done", say("done", language), right, 1.0)


def png_url(image: Image.Image) -> str:
    """Return a picture as a lossless data URL, with its parameters text where it has one."""
    chunks, data = PngInfo(), io.BytesIO()
    if "parameters" in image.info:
        chunks.add_text("parameters", image.info["parameters"])
    image.save(data, "PNG", pnginfo=chunks)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def to_grey(
    values: torch.Tensor, low: float | None = None, high: float | None = None
) -> Image.Image:
    """Return a tensor (h, w) as a grey picture.

    low, high: the values that become black and white; None for the smallest and the largest.
    """
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    scaled = ((values - low) / ((high - low) or 1.0)).clamp(0, 1)
    return Image.fromarray((scaled * 255).round().byte().cpu().numpy(), "L")


def render_figure(source: str, alt: str, caption: str = "", key: str = "", kind: str = "") -> str:
    """Return a picture with a caption. key: of the frames of a `frame_slider` that change it."""
    changes = f' data-is="{key}"' if key else ""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure class="gb-figure {kind}"><img src="{source}" alt="{escape(alt)}"{changes}>'
        f"{below}</figure>"
    )


def locate(*objects: Callable[..., Any]) -> list[tuple[str, str]]:
    """Return (file, qualified name) of functions and classes of this repository."""
    files = [Path(sys.modules[one.__module__].__file__ or "") for one in objects]
    return [
        (file.relative_to(ROOT).as_posix(), one.__qualname__)
        for file, one in zip(files, objects, strict=True)
    ]


@lru_cache
def read_source(path: str, name: str) -> tuple[int, str]:
    """Return (first line, code) of a function, class or `Class.method` of a file."""
    text = (ROOT / path).read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return first, "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def render_excerpt(path: str, name: str) -> str:
    """Return the code of a function or class, to unfold."""
    line, code = read_source(path, name)
    return (
        f"<details><summary><code>{path}:{line}</code> <b>{escape(name)}</b></summary>"
        f"<pre>{escape(code)}</pre></details>"
    )
