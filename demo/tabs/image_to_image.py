"""The tab Image to image: redraw a picture as a prompt describes."""

from __future__ import annotations

from typing import Any

from pipeline.tasks.image_to_image import FITS

from ..page import Page
from ..ui.fields import choice, picture, share
from ..ui.tab import TaskTab

TEXTS = {  # key: (English, Chinese)
    "fit": ("Where the shapes differ", "长宽比不同时"),
    "fit_crop": ("cut off the edges", "裁掉边缘"),
    "fit_stretch": ("stretch", "拉伸"),
    "fit_pad": ("fill the edges", "补边"),
}


def inputs(page: Page, key: str) -> dict[str, Any]:
    """Build the inputs that only Image to image has; return a dict from option to component.

    They are the picture, the denoising strength, and how the picture is fitted to the chosen size
    where the aspect ratios differ. key: the task's key, "image_to_image".
    """
    return {
        "picture": picture(page, key),
        "strength": share(page, key, "strength"),
        "fit": choice(page, key, "fit", FITS),
    }


TAB = TaskTab(
    title=("Image to image", "图生图"),
    button=("Draw anew", "重画"),
    inputs=inputs,
    own_size=True,
    texts=TEXTS,
)
