"""The tab Enlarge: a picture is enlarged, and its details are drawn tile by tile."""

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
    """Build the picture, scale and upscaler, and how the details are redrawn."""
    made: dict[str, Any] = {"picture": picture(page, key)}
    with gr.Row():
        made["scale"] = number(page, key, "scale", step=0.5)
        made["upscaler"] = choice(page, key, "upscaler", PIXELS)
    made["redraw"] = switch(page, key, "redraw")
    made["strength"] = share(page, key, "strength")
    with gr.Row():
        made["tile"] = number(page, key, "tile", step=8)
        made["overlap"] = number(page, key, "overlap", step=8)
    return made


TAB = TaskTab(
    title=("Enlarge", "放大"),
    button=("Enlarge", "放大"),
    inputs=inputs,
    without=("width", "height"),
    texts=TEXTS,
)
