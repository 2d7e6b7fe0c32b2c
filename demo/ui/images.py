"""Embed pictures in the page's HTML as data URLs."""

from __future__ import annotations

import base64
import io

from PIL import Image

THUMBNAIL_SIDE = 192  # pixels of the longer side of a picture in the history


def data_url(picture: Image.Image, side: int) -> str:
    """Return a picture as a JPEG data URL, scaled down so that no side exceeds `side` pixels.

    Unlike a file on the server, a data URL cannot be fetched by other visitors.
    """
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
