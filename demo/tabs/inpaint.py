"""The tab Inpaint: repaint the masked area of a picture, or extend the picture (outpainting)."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL.Image import Image

from pipeline.images.open import open_picture
from pipeline.tasks.inpaint import AREAS, FILLS, SIDES

from ..page import Page
from ..ui import upload
from ..ui.fields import choice, number, picture, share
from ..ui.listeners import UNQUEUED
from ..ui.tab import TaskTab

TEXTS = {  # key: (English, Chinese)
    "picture_other": ("Another picture", "换一张图片"),
    "mask_paint": ("Paint over what is to be repainted", "涂抹要重绘的部分"),
    "mask_file": ("Or a mask file, white where it is repainted", "或使用蒙版图片，白色为重绘处"),
    "mask": ("Mask", "蒙版"),
    "area": ("Seen by the model", "模型看到的范围"),
    "area_whole": ("the whole picture", "整幅图片"),
    "area_masked": ("the painted part, larger", "只看涂抹处，更清晰"),
    "fill": ("Begins from", "起点"),
    "fill_original": ("what is there", "原有内容"),
    "fill_fill": ("the colours around", "周围颜色"),
    "fill_noise": ("noise", "噪声"),
    "padding": ("Margin seen", "可见边距"),
    "mask_blur": ("Soft edge", "边缘柔化"),
    "paint_on": ("Paint on beyond the edges, in pixels", "向边缘之外延展（像素）"),
    "left": ("Left", "左"),
    "top": ("Top", "上"),
    "right": ("Right", "右"),
    "bottom": ("Bottom", "下"),
}


def inputs(page: Page, key: str) -> dict[str, Any]:
    """Build the inputs that only the tab Inpaint has; return a dict from name to component.

    They are the picture, an editor to paint the mask ("painted"), a mask file, how the masked area
    is repainted, and by how many pixels each side is extended. `fields` turns their values into
    options. key: the task's key, "inpaint".
    """
    i18n = page.i18n
    box = picture(page, key)
    painted = upload.MaskEditor(
        label=i18n("mask_paint"), visible=False, height=460, buttons=[], elem_id=f"{key}-painted"
    )
    other = gr.Button(i18n("picture_other"), size="sm", visible=False, elem_id=f"{key}-other")

    def follow(path: str | None, image: Image | None) -> dict[Any, Any]:
        """Return updates that show the picture in the mask editor, which hides the upload box.

        path: the picture's file; image: its pixels. If both are None, the empty upload box is
        shown.
        """
        has_picture = image is not None
        return {
            painted: gr.update(**upload.canvas(image)),
            other: gr.update(visible=has_picture),
            box: gr.update(value=path, visible="hidden" if has_picture else True),
        }

    page.boxes[key].follow = follow
    gr.on(
        [other.click, painted.clear],
        lambda: follow(None, None),
        None,
        [painted, other, box],
        **UNQUEUED,
    )
    components: dict[str, Any] = {"picture": box, "painted": painted}
    with gr.Accordion(i18n("mask_file"), open=False):
        components["mask"] = upload.PictureBox(
            label=i18n("mask"),
            placeholder=i18n("picture_drop"),
            sources=["upload", "clipboard"],
            height=150,
            buttons=[],
            elem_id=f"{key}-mask",
            elem_classes="gb-picture",
        )
    components["strength"] = share(page, key, "strength")
    with gr.Row():
        components["area"] = choice(page, key, "area", AREAS)
        components["fill"] = choice(page, key, "fill", FILLS)
    with gr.Row():
        components["padding"] = number(page, key, "padding", step=8)
        components["mask_blur"] = number(page, key, "mask_blur")
    with gr.Accordion(i18n("paint_on"), open=False, elem_id=f"{key}-sides"), gr.Row():
        components |= {side: number(page, key, side, step=8) for side in SIDES}
    return components


def fields(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the task "inpaint" from the values of the tab's own inputs, by name.

    The mask becomes the union of the painted strokes and the mask file, at the picture's size; None
    where both are empty. Raises InputError for a file that is no picture.
    """
    values = dict(values)
    painted = values.pop("painted")
    if values["picture"]:
        opened = values["picture"] = open_picture(values["picture"])
        values["mask"] = upload.mask(painted, values["mask"], opened.image.size)
    return values


def before(values: dict[str, Any]) -> str | None:
    """Return the path of the input picture that the before/after slider compares with the result.

    None for no picture, and for a picture that is extended: its content lies elsewhere in the
    result. values: those of the tab's own inputs, by name.
    """
    return None if any(values[side] for side in SIDES) else values["picture"]


TAB = TaskTab(
    title=("Inpaint", "局部重绘"),
    button=("Repaint", "重绘"),
    inputs=inputs,
    fields=fields,
    own_size=True,
    before=before,
    texts=TEXTS,
)
