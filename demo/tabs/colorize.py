"""The tab Colorize: give a grey picture the colours that a prompt describes."""

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
    """Build the inputs that only the tab Colorize has; return a dict from option to component.

    They are the picture, the denoising strength, and a guidance scale, which replaces the one that
    all tabs share. key: the task's key, "colorize".
    """
    components: dict[str, Any] = {
        "picture": picture(page, key),
        "strength": share(page, key, "strength"),
    }
    # The shared guidance scale is too strong for colouring. A text box, so that it may stay empty.
    components["cfg"] = gr.Textbox(
        label=page.i18n("cfg"),
        placeholder=page.i18n("cfg_half"),
        max_lines=1,
        elem_id=f"{key}-cfg",
    )
    return components


def fields(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the task "colorize" from the values of the tab's inputs, both by name.

    An empty guidance scale ("cfg") becomes None, for which the task takes half of the model's
    default.
    """
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
