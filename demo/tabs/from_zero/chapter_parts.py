"""What every chapter is made of: its words, something to try, and where its code stands."""

from __future__ import annotations

import ast
import base64
import io
import json
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from ...events import Finished
from ...texts import request_language, say
from ...ui.failures import FAILURES, error_sentence, hide_internal_errors
from ...ui.listeners import GPU, PRIVATE
from ...ui.status import error_line, progress_line, status_line

ROOT = Path(__file__).parents[3]
BOOK = Path(__file__).with_name("book.js").read_text(encoding="utf-8")


def prose(i18n, *keys: str) -> None:
    """Paragraphs; a key that ends in `_title` is a heading. The browser translates one text in a
    component, so each has its own."""
    with gr.Column(elem_classes="gb-prose", min_width=0):
        for key in keys:
            html(_words(i18n, key))


def html(value: str = "", **more) -> gr.HTML:
    """HTML of the page's own."""
    return gr.HTML(value, apply_default_css=False, **more)


def places(i18n, *rows: tuple[str, str]) -> gr.HTML:
    """The end of a chapter: the code that did it, to unfold. rows: (file, function or class)."""
    items = "".join(_place(*row) for row in rows)
    title = f'<h3 class="gb-title">{i18n("zero_places")}</h3>'
    return html(title + items, elem_classes="gb-places")


def locations(*objects: Callable[..., Any]) -> list[tuple[str, str]]:
    """Return (file, qualified name) of functions and classes of this repository, for `places`."""
    files = [Path(sys.modules[one.__module__].__file__ or "") for one in objects]
    return [
        (file.relative_to(ROOT).as_posix(), one.__qualname__)
        for file, one in zip(files, objects, strict=True)
    ]


def status(i18n, elem_id: str) -> gr.HTML:
    """The line that says how far something is, and what went wrong."""
    return html(status_line("ready", i18n("ready")), elem_id=elem_id, elem_classes="gb-zero-status")


def book(elem_id: str) -> gr.HTML:
    """What a slider leafs through, empty at first; see `pages` and book.js."""
    return gr.HTML(
        "",
        html_template='<div class="gb-book"></div><label class="gb-turn"><span></span>'
        '<input type="range" min="0" max="0" value="0"><output></output></label>',
        js_on_load=BOOK,
        apply_default_css=False,
        elem_id=elem_id,
    )


def pages(html: str, label: str, frames: list[dict[str, str]], at: int = 0) -> str:
    """The value of a `book`. frames: what changes at each place of the slider, by its data-is;
    "place" is said beside the slider."""
    return json.dumps({"html": html, "label": label, "frames": frames, "at": at})


def on_device(trigger: Callable, work: Callable, inputs: list, outputs: list, status: gr.HTML):
    """Let an event run `work(language, *values)`, which yields updates, on the device; gives the
    listener. What fails is one sentence in `status`."""

    def run(request: gr.Request, *values):
        language = request_language(request)
        yield {status: status_line("running", say("zero_working", language))}
        try:
            with hide_internal_errors():
                yield from work(language, *values)
        except FAILURES as error:
            yield {status: error_line(error_sentence(error, language))}

    return trigger(run, inputs, [*outputs, status], **PRIVATE, **GPU)


def drawn(page, fields: dict, folder: str, language: str, status: gr.HTML) -> Iterator[dict]:
    """Draw as the page does; yields updates of `status` and returns the Finished."""
    for event in page.runner.stream({k: v for k, v in fields.items() if v is not None}, folder):
        if isinstance(event, Finished):
            return event
        yield {status: progress_line(event, language)}
    raise RuntimeError("nothing was drawn")


def ready(language: str) -> str:
    """The status line before anything."""
    return status_line("ready", say("ready", language))


def running(what: str, right: str, share: float) -> str:
    """The status line on the way."""
    return status_line("running", what, right, share)


def done(language: str, seconds: float) -> str:
    """The status line of what is done."""
    right = say("seconds", language, seconds=seconds)
    return status_line("done", say("done", language), right, 1.0)


def png(image) -> str:
    """A picture as it is, inside the page, with the parameters text that it may have."""
    from PIL.PngImagePlugin import PngInfo

    chunks, data = PngInfo(), io.BytesIO()
    if "parameters" in image.info:
        chunks.add_text("parameters", image.info["parameters"])
    image.save(data, "PNG", pnginfo=chunks)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def grey(values, low: float | None = None, high: float | None = None):
    """A tensor (h, w) as a grey picture, its smallest value black unless `low` and `high` are."""
    from PIL import Image

    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    scaled = ((values - low) / ((high - low) or 1.0)).clamp(0, 1)
    return Image.fromarray((scaled * 255).round().byte().cpu().numpy(), "L")


def figure(source: str, alt: str, caption: str = "", key: str = "", kind: str = "") -> str:
    """A picture with its words; `key` makes it change with the frames of a `book`."""
    changes = f' data-is="{key}"' if key else ""
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure class="gb-figure {kind}"><img src="{source}" alt="{escape(alt)}"{changes}>'
        f"{words}</figure>"
    )


@lru_cache
def source(path: str, name: str) -> tuple[int, str]:
    """(line, code) of a function or class, `Class.method` too, of a file of this repository."""
    text = (ROOT / path).read_text(encoding="utf-8")
    node = ast.parse(text)
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return first, "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def _words(i18n, key: str) -> str:
    tag = 'h3 class="gb-title"' if key.endswith("_title") else 'p class="gb-note"'
    return f"<{tag}>{i18n(key)}</{tag.split()[0]}>"


def _place(path: str, name: str) -> str:
    line, code = source(path, name)
    return (
        f"<details><summary><code>{path}:{line}</code> <b>{escape(name)}</b></summary>"
        f"<pre>{escape(code)}</pre></details>"
    )
