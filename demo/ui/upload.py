"""Components for uploaded pictures and masks.

Their values are paths of the uploaded files, not decoded by Gradio: only pipeline.images.open
decodes what visitors send, with its own list of formats and limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from pipeline.images.open import open_picture

from .no_stub_files import NoStubFiles

if TYPE_CHECKING:
    from PIL import Image

PAINT = ("#ff1fa8", 0.6)  # colour and opacity of the brush; `mask` needs a colour that is not black
BRUSH = 1 / 16  # initial size of the brush, as a fraction of the picture's shorter side
SHOWN_SIDE = 1024  # pixels of the longer side in the editor: a browser keeps several copies


class PictureBox(gr.Image, metaclass=NoStubFiles):
    """A gr.Image for uploads whose value is the file's path, so that Gradio decodes no file.

    The pipeline opens the file with its own list of formats and limits.
    """

    is_template = True  # the browser shows it as a gr.Image

    def __init__(self, **more: Any):
        fixed: dict[str, Any] = {"type": "filepath", "image_mode": None}
        super().__init__(**fixed | more)

    def get_config(self, cls: type | None = None) -> dict[str, Any]:
        """Return the component's configuration for the browser, which shows it as a gr.Image.

        cls: an argument of Gradio's method, not used.
        """
        return super().get_config(gr.Image)

    def preprocess(self, payload: Any) -> str | None:
        """Return the path of the uploaded file, the value that listeners get; None for no file."""
        return payload.path if payload is not None else None


class MaskEditor(gr.ImageEditor, metaclass=NoStubFiles):
    """An editor for painting a mask over a picture.

    Its value is a list of the paths of the painted layers, image files with the strokes alone.
    """

    is_template = True  # the browser shows it as a gr.ImageEditor
    # The page uploads the strokes as files; Gradio's other way keeps any number of bytes in memory.
    accept_blobs = None

    def __init__(self, **more: Any):
        fixed: dict[str, Any] = {
            "type": "filepath",
            "format": "png",
            "brush": _brush(512),
            "layers": False,
        }
        super().__init__(**fixed | {"sources": (), "transforms": ()} | more)

    def get_config(self, cls: type | None = None) -> dict[str, Any]:
        """Return the settings that Gradio sends to the browser, those of a gr.ImageEditor.

        The browser shows this component as one. cls: a parameter of Gradio's own method, not used.
        """
        return super().get_config(gr.ImageEditor)

    def preprocess(self, payload: Any) -> list[str]:  # type: ignore[override]  # files, no pixels
        """Return the paths of the painted layers, the value that listeners get; [] for none."""
        if payload is None:
            return []
        return [layer.path for layer in payload.layers]


def canvas(image: Image.Image | None) -> dict[str, Any]:
    """Return the properties with which a MaskEditor shows `image`, with nothing painted on it.

    For None the editor is hidden.
    """
    if image is None:
        return {"value": None, "visible": False}
    shown = image.copy()
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    value = {"background": shown, "layers": [], "composite": None}
    return {"value": value, "visible": True, "brush": _brush(min(shown.size))}


def _brush(side: int) -> gr.Brush:
    """Return the brush of the mask editor for a picture whose shorter side has `side` pixels."""
    return gr.Brush(max(1, round(side * BRUSH)), colors=[PAINT], color_mode="fixed")


def mask(painted: list[str], file: str | None, size: tuple[int, int]) -> Image.Image | None:
    """Return the inpainting mask: the union of painted layers and a mask file, an "L" picture.

    Pixels of 255 are to be repainted; None if there are none.
    painted: paths of the layers; file: path of the mask; size: width and height in pixels.
    Raises InputError for a file that cannot be used as a mask.
    """
    from PIL import Image, ImageChops

    from pipeline.images.masks import open_mask

    masks = [open_mask(file, size)] if file else []
    for layer in painted:
        image = open_picture(layer, "The mask", ground="black").image.resize(
            size, Image.Resampling.NEAREST
        )
        # The brush's edge is half transparent: on black its colour is dim, but above 0.
        strongest = ImageChops.lighter(*(image.getchannel(c) for c in "RG"))
        masks.append(strongest.point(lambda value: 255 if value else 0))
    union: Image.Image | None = None
    for one in masks:
        union = one if union is None else ImageChops.lighter(union, one)
    return union if union is not None and union.getbbox() else None
