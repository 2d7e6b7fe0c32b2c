"""The tab High-res fix: draw a small picture, enlarge it, and redraw it in a second pass."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pipeline.tasks.common import ENLARGERS

from ..page import Page
from ..ui.fields import choice, number, share
from ..ui.tab import TaskTab

TEXTS = {  # key: (English, Chinese)
    "refine_steps": ("Steps of the second pass", "第二遍步数"),
    "refine_steps_hint": ("0: as many as of the first.", "0：与第一遍相同。"),
}


def inputs(page: Page, key: str) -> dict[str, Any]:
    """Build the inputs that only the tab High-res fix has; return a dict from option to component.

    They are the scale, the upscaler, and the strength and number of steps of the second pass. key:
    the task's key, "hires".
    """
    with gr.Row():
        scale = number(page, key, "scale", step=0.5)
        upscaler = choice(page, key, "upscaler", ENLARGERS)
    return {
        "scale": scale,
        "upscaler": upscaler,
        "strength": share(page, key, "strength"),
        "refine_steps": number(page, key, "refine_steps"),
    }


TAB = TaskTab(
    title=("High-res fix", "高清修复"),
    button=("Generate large", "生成大图"),
    inputs=inputs,
    texts=TEXTS,
)
