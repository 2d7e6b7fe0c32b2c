"""The tab Enlarge: enlarge a picture and let the model redraw its details tile by tile."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pipeline.tasks.common import PIXELS

from ..page import Page
from ..ui.fields import choice, number, picture, share, switch
from ..ui.tab import TaskTab

TEXTS = {  # key: (English, Chinese)
    "redraw": ("Let the model draw the details", "让模型补画细节"),
    "tile": ("Tile", "分块"),
    "tile_hint": ("Pixels; 0: the model's size.", "像素，0 为模型的尺寸。"),
    "overlap": ("Overlap", "重叠"),
    "overlap_hint": ("Pixels; 0: half a tile.", "像素，0 为半块。"),
}


def inputs(page: Page, key: str) -> dict[str, Any]:
    """Build the inputs that only the tab Enlarge has; return a dict from option to component.

    They are the picture, the scale, the upscaler, whether the model redraws the details, with which
    denoising strength, and side and overlap of its tiles in pixels. key: the task's key, "upscale".
    """
    components: dict[str, Any] = {"picture": picture(page, key)}
    with gr.Row():
        components["scale"] = number(page, key, "scale", step=0.5)
        components["upscaler"] = choice(page, key, "upscaler", PIXELS)
    components["redraw"] = switch(page, key, "redraw")
    components["strength"] = share(page, key, "strength")
    with gr.Row():
        components["tile"] = number(page, key, "tile", step=8)
        components["overlap"] = number(page, key, "overlap", step=8)
    return components


TAB = TaskTab(
    title=("Enlarge", "放大"),
    button=("Enlarge", "放大"),
    inputs=inputs,
    without=("width", "height"),
    texts=TEXTS,
)
