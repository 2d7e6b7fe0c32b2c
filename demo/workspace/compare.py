"""A slider over two pictures: the new one and the input picture that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.processing_utils import save_pil_to_cache

from pipeline.images.open import fit_image, opened

from ..ui.listeners import UNQUEUED
from .send_to import chosen_picture

if TYPE_CHECKING:
    from .layout import ResultView


@dataclass(frozen=True)
class Comparison:
    """The components of the before/after slider, which compares a result with its input picture.

    button: shows the slider, or hides it
    before: the path of the input picture, None for a task without one
    shown: whether the slider is visible
    """

    button: gr.Button
    slider: gr.ImageSlider
    before: gr.State
    shown: gr.State

    def reset(self, before: str | None) -> dict[Any, Any]:
        """Return the updates for a new result: the before/after slider is hidden, its button shown.

        before: the path of the input picture; None, for a task without one, hides the button too.
        """
        return {
            **self.hide(),
            self.button: gr.update(visible=before is not None),
            self.before: before,
        }

    def hide(self) -> dict[Any, Any]:
        """Return the updates that hide the before/after slider."""
        return {self.slider: gr.update(visible=False), self.shown: False}


def build_slider(i18n: gr.I18n) -> gr.ImageSlider:
    """Build the before/after slider over a result and its input picture, hidden at first."""
    return gr.ImageSlider(
        label=i18n("compare_label"),  # type: ignore[arg-type]  # Gradio translates it
        show_label=False,
        container=False,
        format="png",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        elem_id="compare",
    )


def build_button(i18n: gr.I18n) -> gr.Button:
    """Build the button that opens the before/after slider.

    The slider compares the result of a task with its input picture.
    """
    return gr.Button(i18n("compare"), size="sm", visible=False, elem_id="compare-open", min_width=0)


def wire(result: ResultView) -> None:
    """Make the button of `result.comparison` show the before/after slider, and hide it again.

    The slider compares the gallery's selected picture with the input picture.
    """
    parts = result.comparison

    def toggle(
        shown: bool, pictures: list | None, index: int, before: str | None
    ) -> dict[Any, Any]:
        path = chosen_picture(pictures, index)
        if shown or not path or not before:
            return parts.hide()
        with opened(path, before) as (new, old):
            fitted = fit_image(old.image, *new.image.size)
            # Written here, as Gradio would write it after the memory is no longer reserved.
            file = save_pil_to_cache(fitted, parts.slider.GRADIO_CACHE, format="png")
        return {parts.slider: gr.update(value=(file, path), visible=True), parts.shown: True}

    parts.button.click(
        toggle,
        [parts.shown, result.gallery, result.chosen, parts.before],
        [parts.slider, parts.shown],
        **UNQUEUED,
    )
