"""What a task's inputs are made of. Each is named after the field of the task's Options whose
default it shows; limits are left to the Options, which have a sentence for what they do not take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from pipeline import tasks

from ..texts import TEXTS, say
from .upload import PictureBox


@dataclass
class Box:
    """Where a task takes its picture. follow: follow(path, PIL image), both None for no picture,
    gives the updates of `picture` and of what else shows it."""

    picture: PictureBox
    follow: Callable[[str | None, Any], dict] | None = None

    def show(self, path: str | None, image: Any) -> dict:
        return self.follow(path, image) if self.follow else {self.picture: path}


def default(key: str, name: str) -> Any:
    return tasks.module(key).Options.model_fields[name].default


def picture(page, key: str) -> PictureBox:
    """The picture that the task begins from; other tabs can send theirs to it."""
    box = PictureBox(
        label=page.i18n("picture_box"),
        placeholder=page.i18n("picture_drop"),
        sources=["upload", "clipboard"],
        height=230,
        buttons=[],
        elem_id=f"{key}-picture",
        elem_classes=["gb-picture", "gb-drop"],
    )
    page.boxes[key] = Box(box)
    return box


def number(page, key: str, name: str, **more) -> gr.Number:
    return gr.Number(default(key, name), **_words(page, key, name), min_width=80, **more)


def share(page, key: str, name: str) -> gr.Slider:
    return gr.Slider(0, 1, default(key, name), step=0.01, **_words(page, key, name))


def switch(page, key: str, name: str) -> gr.Checkbox:
    return gr.Checkbox(default(key, name), **_words(page, key, name))


def choice(page, key: str, name: str, values: tuple[str, ...]) -> gr.Dropdown:
    """One of `values`; the text of each is that of the key NAME_VALUE."""

    def choices(language: str) -> list[tuple[str, str]]:
        return [(say(f"{name}_{value}", language), value) for value in values]

    return worded(page, choices, default(key, name), min_width=140, **_words(page, key, name))


def worded(page, choices: Callable[[str], list], value: Any, **more) -> gr.Dropdown:
    """A dropdown whose choices are in the visitor's language from the moment that it is known."""
    box = gr.Dropdown(choices("en"), value=value, **more)
    page.worded[box] = choices
    return box


def _words(page, key: str, name: str) -> dict:
    hint = f"{name}_hint"
    return {
        "label": page.i18n(name),
        "info": page.i18n(hint) if hint in TEXTS else None,
        "elem_id": f"{key}-{name}",
    }
