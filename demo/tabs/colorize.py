"""The tab Colorize: a grey picture gets the colours that a prompt asks for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..page import Page
from ..ui.fields import picture, share
from ..ui.tab import TaskTab

TEXTS = {  # key: (English, Chinese)
    "cfg_half": ("half of the model's own", "模型默认值的一半"),
}


def inputs(page: Page, key: str) -> dict[str, Any]:
    """Build the picture, the strength and a guidance scale of the task's own."""
    made: dict[str, Any] = {
        "picture": picture(page, key),
        "strength": share(page, key, "strength"),
    }
    # The shared guidance scale suits drawing, not colouring. A text box, so that it may stay empty.
    made["cfg"] = gr.Textbox(
        label=page.i18n("cfg"),
        placeholder=page.i18n("cfg_half"),
        max_lines=1,
        elem_id=f"{key}-cfg",
    )
    return made


def fields(values: dict[str, Any]) -> dict[str, Any]:
    """Return the task's options; an empty guidance scale is None, the task's default."""
    return values | {"cfg": (values["cfg"] or "").strip() or None}


TAB = TaskTab(
    title=("Colorize", "上色"),
    button=("Colorize", "上色"),
    inputs=inputs,
    fields=fields,
    without=("cfg",),
    own_size=True,
    texts=TEXTS,
)
