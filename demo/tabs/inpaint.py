"""A picture with a part painted over, which is repainted, or painted on beyond its edges."""

from __future__ import annotations

import gradio as gr

from pipeline.images.open import open_picture
from pipeline.tasks.inpaint import AREAS, FILLS, SIDES

from ..ui import upload
from ..ui.fields import Task, choice, number, picture, share
from ..ui.listeners import UNQUEUED


def inputs(page, key: str) -> dict:
    i18n = page.i18n
    box = picture(page, key)
    painted = upload.MaskEditor(
        label=i18n("mask_paint"), visible=False, height=460, buttons=[], elem_id=f"{key}-painted"
    )
    other = gr.Button(i18n("picture_other"), size="sm", visible=False, elem_id=f"{key}-other")

    def follow(path: str | None, image) -> dict:
        """The editor takes the picture's place, or gives it back."""
        there = image is not None
        return {
            painted: gr.update(**upload.canvas(image)),
            other: gr.update(visible=there),
            box: gr.update(value=path, visible="hidden" if there else True),
        }

    page.boxes[key].follow = follow
    gr.on(
        [other.click, painted.clear],
        lambda: follow(None, None),
        None,
        [painted, other, box],
        **UNQUEUED,
    )
    made = {"picture": box, "painted": painted}
    with gr.Accordion(i18n("mask_file"), open=False):
        made["mask"] = upload.PictureBox(
            label=i18n("mask"),
            placeholder=i18n("picture_drop"),
            sources=["upload", "clipboard"],
            height=150,
            buttons=[],
            elem_id=f"{key}-mask",
            elem_classes="gb-picture",
        )
    made["strength"] = share(page, key, "strength")
    with gr.Row():
        made["area"] = choice(page, key, "area", AREAS)
        made["fill"] = choice(page, key, "fill", FILLS)
    with gr.Row():
        made["padding"] = number(page, key, "padding", step=8)
        made["mask_blur"] = number(page, key, "mask_blur")
    with gr.Accordion(i18n("paint_on"), open=False, elem_id=f"{key}-sides"), gr.Row():
        made |= {side: number(page, key, side, step=8) for side in SIDES}
    return made


def fields(values: dict) -> dict:
    """What was painted becomes the mask; the picture is opened once for both."""
    values = dict(values)
    painted = values.pop("painted")
    if values["picture"]:
        opened = values["picture"] = open_picture(values["picture"])
        values["mask"] = upload.mask(painted, values["mask"], opened.image.size)
    return values


def before(values: dict) -> str | None:
    """A picture with margins is not where it was."""
    return None if any(values[side] for side in SIDES) else values["picture"]


TASK = Task(inputs, fields, own_size=True, before=before)
