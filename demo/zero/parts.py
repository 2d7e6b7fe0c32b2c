"""What every chapter is made of: its words, something to try, and where its code stands."""

from __future__ import annotations

import ast
from functools import lru_cache
from html import escape
from pathlib import Path

import gradio as gr

ROOT = Path(__file__).parents[2]
PRIVATE = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


def prose(i18n, *keys: str) -> gr.HTML:
    """Paragraphs; a key that ends in `_title` is a heading."""
    return html("".join(_words(i18n, key) for key in keys), elem_classes="gb-prose")


def html(value: str = "", **more) -> gr.HTML:
    """HTML of the page's own."""
    return gr.HTML(value, apply_default_css=False, **more)


def places(i18n, *rows: tuple[str, str]) -> gr.HTML:
    """The end of a chapter: the code that did it, to unfold. rows: (file, function or class)."""
    items = "".join(_place(*row) for row in rows)
    return html(f'<h3 class="gb-title">{i18n("zero_places")}</h3>{items}', elem_classes="gb-places")


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
