"""A picture, enlarged, its details drawn tile by tile."""

from __future__ import annotations

import gradio as gr

from pipeline.tasks.common import PIXELS

from ..ui.fields import Task, choice, number, picture, share, switch


def inputs(page, key: str) -> dict:
    made = {"picture": picture(page, key)}
    with gr.Row():
        made["scale"] = number(page, key, "scale", step=0.5)
        made["upscaler"] = choice(page, key, "upscaler", PIXELS)
    made["redraw"] = switch(page, key, "redraw")
    made["strength"] = share(page, key, "strength")
    with gr.Row():
        made["tile"] = number(page, key, "tile", step=8)
        made["overlap"] = number(page, key, "overlap", step=8)
    return made


TASK = Task(inputs, without=("width", "height"))
