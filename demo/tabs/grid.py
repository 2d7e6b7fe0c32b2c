"""One picture for each value of up to three options."""

from __future__ import annotations

import gradio as gr

from pipeline.samplers import SAMPLERS, SCHEDULES
from pipeline.tasks.grid_axes import LABELS

from ..texts import TEXTS, say
from ..ui.fields import Task, worded

AXES = ("x", "y", "z")
FIRST = {"x": "cfg"}  # what each varies at first
VALUES = {  # what a person may write for each option
    "prompt": "apple, cat, rocket",
    "negative": "rain, fog",
    "sampler": ", ".join(SAMPLERS[k].label for k in ("euler_a", "dpmpp_2m", "heun")),
    "schedule": ", ".join(SCHEDULES[k].label for k in ("automatic", "karras")),
    "steps": "5-20 (+5)",
    "cfg": "2, 4, 8",
    "seed": "1-4",
    "size": "128x128, 192x128",
    "width": "128, 192",
    "height": "128, 192",
    "clip_skip": "1, 2",
    "cfg_rescale": "0-0.9 [4]",
    "variation_seed": "1-4",
    "variation_strength": "0-0.4 [5]",
}


def inputs(page, key: str) -> dict:
    made = {}
    for axis in AXES:
        first = FIRST.get(axis, "")
        with gr.Row(elem_classes="gb-axis"):
            name = worded(
                page,
                options,
                first,
                label=page.i18n(f"axis_{axis}"),
                elem_id=f"{key}-{axis}-name",
                min_width=140,
            )
            values = gr.Textbox(
                label=page.i18n("axis_values"),
                placeholder=VALUES.get(first, ""),
                max_lines=1,
                elem_id=f"{key}-{axis}",
                scale=2,
                min_width=140,
            )
        name.input(
            lambda chosen: gr.update(placeholder=VALUES.get(chosen, "")),
            name,
            values,
            queue=False,
            api_visibility="private",
            show_progress="hidden",
        )
        made |= {f"{axis}_name": name, axis: values}
    gr.HTML(f'<p class="gb-note gb-not">{page.i18n("grid_hint")}</p>', apply_default_css=False)
    return made


def options(language: str) -> list[tuple[str, str]]:
    """What can vary, as the page calls it."""
    named = {name: f"axis_{name}" if f"axis_{name}" in TEXTS else name for name in LABELS}
    return [(say("axis_none", language), "")] + [(say(t, language), n) for n, t in named.items()]


def fields(values: dict) -> dict:
    """An axis is its option and its values; of one without an option, its values are ignored."""
    names = {axis: values[f"{axis}_name"] for axis in AXES}
    return {axis: f"{name}: {values[axis]}" if name else "" for axis, name in names.items()}


TASK = Task(inputs, fields, without=("count",), first=True)
