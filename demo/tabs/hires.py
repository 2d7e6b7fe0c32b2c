"""A prompt, drawn small, enlarged and drawn again."""

from __future__ import annotations

import gradio as gr

from pipeline.tasks.common import WAYS

from ..ui.fields import Task, choice, number, share


def inputs(page, key: str) -> dict:
    with gr.Row():
        scale = number(page, key, "scale", step=0.5)
        upscaler = choice(page, key, "upscaler", WAYS)
    return {
        "scale": scale,
        "upscaler": upscaler,
        "strength": share(page, key, "strength"),
        "refine_steps": number(page, key, "refine_steps"),
    }


TASK = Task(inputs)
