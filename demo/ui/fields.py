"""The input components of the task tabs.

Each is named after a field of the task's Options and shows its default. None has limits of its own:
the Options refuse wrong values in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipeline import tasks

from ..texts import TEXTS, say
from .upload import PictureBox

if TYPE_CHECKING:
    from ..page import Page


@dataclass
class Box:
    """A task's input picture.

    follow: follow(path, PIL image), both None for no picture, returns the updates of `picture` and
    of other components that show it; None where there are none.
    """

    picture: PictureBox
    follow: Callable[[str | None, Any], dict] | None = None

    def show(self, path: str | None, image: Any) -> dict[Any, Any]:
        """Return the updates that show a picture, or none."""
        return self.follow(path, image) if self.follow else {self.picture: path}


def default(key: str, name: str) -> Any:
    """Return the default of a field of a task's Options. key: the task, name: the field."""
    return tasks.module(key).Options.model_fields[name].default


def picture(page: Page, key: str) -> PictureBox:
    """Build the task's input picture, to which other tabs can send theirs."""
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


def number(page: Page, key: str, name: str, **more: Any) -> gr.Number:
    """Build a number field."""
    return gr.Number(default(key, name), **_labels(page, key, name), min_width=80, **more)


def share(page: Page, key: str, name: str) -> gr.Slider:
    """Build a slider from 0 to 1."""
    return gr.Slider(0, 1, default(key, name), step=0.01, **_labels(page, key, name))


def switch(page: Page, key: str, name: str) -> gr.Checkbox:
    """Build a checkbox."""
    return gr.Checkbox(default(key, name), **_labels(page, key, name))


def choice(page: Page, key: str, name: str, values: tuple[str, ...]) -> gr.Dropdown:
    """Build a menu of `values`, whose labels are the texts of the keys NAME_VALUE."""

    def choices(language: str) -> list[tuple[str, str]]:
        return [(say(f"{name}_{value}", language), value) for value in values]

    return translated_menu(
        page, choices, default(key, name), min_width=140, **_labels(page, key, name)
    )


def translated_menu(
    page: Page, choices: Callable[[str], list[tuple[str, str]]], value: Any, **more: Any
) -> gr.Dropdown:
    """Build a menu whose choices are translated when the page opens. choices: by language."""
    box = gr.Dropdown(choices("en"), value=value, **more)
    page.translated[box] = choices
    return box


def _labels(page: Page, key: str, name: str) -> dict[str, Any]:
    hint = f"{name}_hint"
    return {
        "label": page.i18n(name),
        "info": page.i18n(hint) if hint in TEXTS else None,
        "elem_id": f"{key}-{name}",
    }
