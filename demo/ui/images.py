"""Pictures inside the page's HTML."""

from __future__ import annotations

import base64
import io

from PIL import Image

THUMBNAIL_SIDE = 192  # pixels: the longer side of a picture in the history


def data_url(picture: Image.Image, side: int) -> str:
    """Return a picture as a JPEG data URL, scaled down to at most `side` pixels.

    It is part of the page, so there is no file that another visitor could fetch.
    """
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
