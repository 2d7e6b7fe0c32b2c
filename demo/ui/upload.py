"""Pictures that visitors give: kept as the files they are, so that pipeline.images.open alone opens
them, with its own list of formats and limits."""

from __future__ import annotations

import gradio as gr

from pipeline.images.open import open_picture

from .no_stub_files import NoStubFiles

PAINT = ("#ff1fa8", 0.6)  # over a picture: any colour but black would do, and its opacity
BRUSH = 1 / 16  # of the picture's shorter side, the brush at first
SHOWN_SIDE = 1024  # pixels of the longer side in the editor: a browser keeps several copies


class PictureBox(gr.Image, metaclass=NoStubFiles):
    """An image field whose value is the uploaded file's path, whatever the file may be."""

    is_template = True  # the browser has gr.Image for it

    def __init__(self, **more):
        super().__init__(**{"type": "filepath", "image_mode": None} | more)

    def get_config(self, cls=None) -> dict:
        return super().get_config(gr.Image)

    def preprocess(self, payload) -> str | None:
        return payload.path if payload is not None else None


class MaskEditor(gr.ImageEditor, metaclass=NoStubFiles):
    """A picture to paint on; its value is the files of what was painted, without the picture."""

    is_template = True

    def __init__(self, **more):
        fixed = {"type": "filepath", "format": "png", "brush": _brush(512), "layers": False}
        super().__init__(**fixed | {"sources": (), "transforms": ()} | more)

    def get_config(self, cls=None) -> dict:
        return super().get_config(gr.ImageEditor)

    def preprocess(self, payload) -> list[str]:
        if payload is None:
            return []
        self.blob_storage.pop(payload.id, None)
        return [layer.path for layer in payload.layers]


def canvas(image) -> dict:
    """Properties of a MaskEditor that shows a PIL picture, or None, with nothing painted on it."""
    if image is None:
        return {"value": None, "visible": False}
    shown = image.copy()
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    value = {"background": shown, "layers": [], "composite": None}
    return {"value": value, "visible": True, "brush": _brush(min(shown.size))}


def _brush(side: int) -> gr.Brush:
    """One that suits a picture whose shorter side has so many pixels."""
    return gr.Brush(max(1, round(side * BRUSH)), colors=[PAINT], color_mode="fixed")


def mask(painted: list[str], file: str | None, size: tuple[int, int]):
    """What was painted and what a mask file says as one "L" picture of `size`, 255 where either
    wants it repainted; None where neither does. InputError for a file that is no mask."""
    from PIL import Image, ImageChops

    from pipeline.images.masks import open_mask

    masks = [open_mask(file, size)] if file else []
    for layer in painted:
        image = open_picture(layer, "The mask", ground="black").image.resize(size, Image.NEAREST)
        # The brush's edge is half transparent: on black, its colour is dim but not gone.
        strongest = ImageChops.lighter(*(image.getchannel(c) for c in "RG"))
        masks.append(strongest.point(lambda value: 255 if value else 0))
    union = None
    for one in masks:
        union = one if union is None else ImageChops.lighter(union, one)
    return union if union is not None and union.getbbox() else None
