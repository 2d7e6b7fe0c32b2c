"""Build the input components of the task tabs, each for one field of a task's Options.

In all functions `key` is the task's key ("inpaint") and `name` the field ("mask_blur"), whose
default the component shows and whose label is the text of that key. The components have no limits:
for wrong values the Options raise InputError.
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
    from PIL.Image import Image

    from ..page import Page


@dataclass
class Box:
    """The component for a task's input picture, and how a picture is shown in it.

    follow: for a task that shows the picture in further components, such as the mask editor:
        follow(path, image) returns the updates of `picture` and those components; both arguments
        are None to show no picture. None for a task that shows it in `picture` alone.
    """

    picture: PictureBox
    follow: Callable[[str | None, Image | None], dict[Any, Any]] | None = None

    def show(self, path: str | None, image: Image | None) -> dict[Any, Any]:
        """Return the updates that show the picture `image`, read from `path`, as the input picture.

        If both are None, the updates show no picture.
        """
        return self.follow(path, image) if self.follow else {self.picture: path}


def default(key: str, name: str) -> Any:
    """Return the default value of the field `name` of a task's Options. key: such as "inpaint"."""
    return tasks.module(key).Options.model_fields[name].default


def picture(page: Page, key: str) -> PictureBox:
    """Build the component for a task's input picture and add it to page.boxes.

    From there, buttons of the gallery and of other tabs find it to send their pictures to it. key:
    the task's key, such as "inpaint".
    """
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
    """Build a number box in which the visitor sets one field of a task's Options.

    key, name: the task, such as "inpaint", and the field, such as "mask_blur". more: arguments of
    gr.Number.
    """
    return gr.Number(default(key, name), **_labels(page, key, name), min_width=80, **more)


def share(page: Page, key: str, name: str) -> gr.Slider:
    """Build a slider from 0 to 1 with which the visitor sets one field of a task's Options.

    key, name: the task, such as "inpaint", and the field, such as "strength".
    """
    return gr.Slider(0, 1, default(key, name), step=0.01, **_labels(page, key, name))


def switch(page: Page, key: str, name: str) -> gr.Checkbox:
    """Build a checkbox with which the visitor sets one field of a task's Options.

    key, name: the task, such as "upscale", and the field, such as "redraw".
    """
    return gr.Checkbox(default(key, name), **_labels(page, key, name))


def choice(page: Page, key: str, name: str, values: tuple[str, ...]) -> gr.Dropdown:
    """Build a menu with which the visitor sets one field of a task's Options.

    Its labels are in the visitor's language. key, name: the task, such as "inpaint", and the field,
    such as "fill". values: the choices; the label of each is the page's text with the key
    "NAME_VALUE", such as "fill_noise".
    """

    def choices(language: str) -> list[tuple[str, str]]:
        return [(say(f"{name}_{value}", language), value) for value in values]

    return translated_menu(
        page, choices, default(key, name), min_width=140, **_labels(page, key, name)
    )


def translated_menu(
    page: Page, choices: Callable[[str], list[tuple[str, str]]], value: Any, **more: Any
) -> gr.Dropdown:
    """Build a menu whose choices are translated into the visitor's language when the page opens.

    choices: returns (label, value) pairs in a language, "en" or "zh"
    value: the one chosen at first; more: arguments of gr.Dropdown
    """
    box = gr.Dropdown(choices("en"), value=value, **more)
    page.translated[box] = choices
    return box


def _labels(page: Page, key: str, name: str) -> dict[str, Any]:
    """Return label, info and elem_id, as keyword arguments, for the component of a task's field.

    info, the hint under the label, is None for a field without one. key, name: the task and the
    field.
    """
    hint = f"{name}_hint"
    return {
        "label": page.i18n(name),
        "info": page.i18n(hint) if hint in TEXTS else None,
        "elem_id": f"{key}-{name}",
    }
