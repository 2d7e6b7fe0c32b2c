"""A grey picture, coloured as a prompt says."""

from __future__ import annotations

import gradio as gr

from ..ui.fields import Task, picture, share


def inputs(page, key: str) -> dict:
    made = {"picture": picture(page, key), "strength": share(page, key, "strength")}
    # Not the shared one, which holds what suits drawing; a text box, because it may be left out.
    made["cfg"] = gr.Textbox(
        label=page.i18n("cfg"),
        placeholder=page.i18n("cfg_half"),
        max_lines=1,
        elem_id=f"{key}-cfg",
    )
    return made


def fields(values: dict) -> dict:
    return values | {"cfg": (values["cfg"] or "").strip() or None}


TASK = Task(inputs, fields, without=("cfg",), own_size=True)
