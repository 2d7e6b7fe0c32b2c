"""The new picture laid over the one that it was made of, with a line to move between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from pipeline.images.open import fit_image, open_picture

from ..ui.listeners import UNQUEUED
from .send_to import chosen


@dataclass(frozen=True)
class Comparison:
    """button shows the slider and puts it away; before: the path of the picture that was given."""

    button: gr.Button
    slider: gr.ImageSlider
    before: gr.State
    shown: gr.State

    def after(self, before: str | None) -> dict[Any, Any]:
        """Updates when other pictures are shown: closed, and offered where there is one before."""
        return {
            **self.put_away(),
            self.button: gr.update(visible=before is not None),
            self.before: before,
        }

    def put_away(self) -> dict[Any, Any]:
        return {self.slider: gr.update(visible=False), self.shown: False}


def slider(i18n) -> gr.ImageSlider:
    return gr.ImageSlider(
        label=i18n("compare_label"),
        show_label=False,
        container=False,
        format="png",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        elem_id="compare",
    )


def button(i18n) -> gr.Button:
    return gr.Button(i18n("compare"), size="sm", visible=False, elem_id="compare-open", min_width=0)


def wire(result) -> None:
    """Make the button work."""
    parts = result.comparison

    def turn(shown: bool, pictures: list | None, index: int, before: str | None):
        path = chosen(pictures, index)
        if shown or not path or not before:
            return parts.put_away()
        new = open_picture(path).image
        old = fit_image(open_picture(before).image, *new.size)
        return {parts.slider: gr.update(value=(old, new), visible=True), parts.shown: True}

    parts.button.click(
        turn,
        [parts.shown, result.gallery, result.chosen, parts.before],
        [parts.slider, parts.shown],
        **UNQUEUED,
    )
