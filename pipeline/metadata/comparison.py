"""Compare a picture with the one made again: weights, environment, text and pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..errors import short
from . import infotext
from .verdict import Difference, PixelDifference

if TYPE_CHECKING:
    from PIL import Image

FILES = {"lora": "Lora hashes", "embedding": "TI hashes"}  # fields of the parameters text
# Fields of the parameters text that are compared by themselves.
COMPARED_ELSEWHERE = {"Version", "Model", "Model hash", "VAE", *FILES.values()}


def weight_differences(then: dict[str, str], now: dict[str, str]) -> tuple[Difference, ...]:
    """Return the parts of the model whose weights differ, with 10 digits of their hashes."""
    names = dict.fromkeys([*then, *now])
    pairs = [(n, then.get(n, "")[:10], now.get(n, "")[:10]) for n in names]
    return tuple(Difference(*p) for p in pairs if then.get(p[0]) != now.get(p[0]))


def environment_differences(then: dict[str, str], now: dict[str, str]) -> tuple[Difference, ...]:
    """Return what differs in device, backends and versions."""
    names = dict.fromkeys([*now, *then])
    rows = (Difference(n[:60], short(then.get(n, "")), now.get(n, "")) for n in names)
    return tuple(row for row in rows if row.then != row.now)


def file_differences(then: str, now: str) -> tuple[Difference, ...]:
    """Return the LoRAs and textual inversions of two parameters texts whose hashes differ."""
    old, new = infotext.parse(then), infotext.parse(now)
    rows = (
        Difference(what, short(old.get(name, "")), new.get(name, ""))
        for what, name in FILES.items()
    )
    return tuple(row for row in rows if row.then != row.now)


def texts_agree(then: str, now: str, same_version: bool) -> bool:
    """Return whether two parameters texts name the same settings.

    Texts of different versions are compared by the fields that both have.
    """
    old, new = infotext.parse(then), infotext.parse(now)
    if same_version:
        names = {*old, *new} - COMPARED_ELSEWHERE
    else:
        names = ({*old} & {*new}) - COMPARED_ELSEWHERE
    return all(old.get(name) == new.get(name) for name in names)


def pixel_difference(then: Image.Image, now: Image.Image) -> PixelDifference | None:
    """Return how much two pictures differ; None where their sizes differ."""
    import numpy as np

    if then.size != now.size:
        return None
    a, b = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (then, now))
    difference = np.abs(a - b)
    return PixelDifference(
        float(difference.mean()), int(difference.max()), float(difference.any(-1).mean())
    )


def difference_image(then: Image.Image, now: Image.Image) -> Image.Image | None:
    """Return a grey picture of the largest difference of each pixel's colours, scaled to 255.

    None where the sizes differ, or nothing does.
    """
    from PIL import ImageChops

    if then.size != now.size:
        return None
    bands = ImageChops.difference(then.convert("RGB"), now.convert("RGB")).split()
    difference = ImageChops.lighter(ImageChops.lighter(*bands[:2]), bands[2])
    largest = cast(int, difference.getextrema()[1])  # of a picture of one band
    return difference.point([min(255, v * 255 // largest) for v in range(256)]) if largest else None
