"""The tab Grid: one picture for each combination of values of up to three options."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pipeline.samplers import SAMPLERS, SCHEDULES
from pipeline.tasks.grid_axes import LABELS

from .. import texts
from ..page import Page
from ..texts import say
from ..ui.fields import translated_menu
from ..ui.tab import TaskTab

AXES = ("x", "y", "z")  # columns, rows, blocks of rows
INITIAL = {"x": "cfg"}  # the option that an axis varies when the page opens; others vary nothing
EXAMPLES = {  # by option: the placeholder of the text box for its values
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

TEXTS = {  # key: (English, Chinese)
    "axis_x": ("Columns", "列"),
    "axis_y": ("Rows", "行"),
    "axis_z": ("Blocks", "组"),
    "axis_values": ("Values, with commas between them", "取值，用逗号分隔"),
    "axis_none": ("nothing varies", "不变"),
    "axis_prompt": ("Words of the prompt", "提示词中的词"),
    "axis_size": ("Size", "尺寸"),
    "grid_hint": (
        "One picture for each combination, on one sheet. Ranges such as 4-20 (+4) are counted "
        "out. Of the prompt's words the first is replaced by each.",
        "每种组合画一张，排成一张大图。可以写 4-20 (+4) 这样的范围。"
        "提示词的词：第一个会被逐个替换。",
    ),
}


def inputs(page: Page, key: str) -> dict[str, Any]:
    """Build the inputs that only the tab Grid has: for each axis a menu of options and a text box.

    An axis (x: columns, y: rows, z: blocks of rows) varies one option, such as "cfg", over the
    values in its text box. Returns {"x_name": menu of x, "x": text box of x, "y_name": ...}. key:
    the task's key, "grid".
    """
    components: dict[str, Any] = {}
    for axis in AXES:
        initial = INITIAL.get(axis, "")
        with gr.Row():
            name = translated_menu(
                page,
                axis_options,
                initial,
                label=page.i18n(f"axis_{axis}"),
                elem_id=f"{key}-{axis}-name",
                min_width=140,
            )
            values = gr.Textbox(
                label=page.i18n("axis_values"),
                placeholder=EXAMPLES.get(initial, ""),
                max_lines=1,
                elem_id=f"{key}-{axis}",
                scale=2,
                min_width=140,
            )
        name.input(
            lambda chosen: gr.update(placeholder=EXAMPLES.get(chosen, "")),
            name,
            values,
            queue=False,
            api_visibility="private",
            show_progress="hidden",
        )
        components |= {f"{axis}_name": name, axis: values}
    gr.HTML(f'<p class="gb-note gb-not">{page.i18n("grid_hint")}</p>', apply_default_css=False)
    return components


def axis_options(language: str) -> list[tuple[str, str]]:
    """Return the menu of an axis of the grid: (label, option) pairs of the options it can vary.

    The option of the first pair is "": the axis varies nothing. language: "en" or "zh".
    """
    keys = {name: f"axis_{name}" if f"axis_{name}" in texts.TEXTS else name for name in LABELS}
    rows = [(say(key, language), name) for name, key in keys.items()]
    return [(say("axis_none", language), ""), *rows]


def fields(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options x, y and z of the task "grid" from the values of the tab's inputs.

    values: for each axis the chosen option, such as {"x_name": "cfg"}, and its values, {"x": "2, 4,
    8"}. The result is {"x": "cfg: 2, 4, 8", ...}, with "" for an axis that varies nothing.
    """
    names = {axis: values[f"{axis}_name"] for axis in AXES}
    return {axis: f"{name}: {values[axis]}" if name else "" for axis, name in names.items()}


TAB = TaskTab(
    title=("Grid", "网格"),
    button=("Draw the grid", "画网格"),
    inputs=inputs,
    fields=fields,
    without=("count",),
    first=True,
    texts=TEXTS,
)
