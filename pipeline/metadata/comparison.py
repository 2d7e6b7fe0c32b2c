"""Compare a picture with one drawn again from its receipt: weights, environment, text, pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..errors import short
from . import infotext
from .verdict import Difference, PixelDifference

if TYPE_CHECKING:
    from PIL import Image

# From a key of verdict.ENVIRONMENT_LABELS to the field of the parameters text with the hashes.
FILES = {"lora": "Lora hashes", "embedding": "TI hashes"}
# Fields of the parameters text that texts_agree leaves out, because they are compared elsewhere.
COMPARED_ELSEWHERE = {"Version", "Model", "Model hash", "VAE", *FILES.values()}


def weight_differences(then: dict[str, str], now: dict[str, str]) -> tuple[Difference, ...]:
    """Return the networks whose weights differ from those that drew a picture.

    then, now: from network name ("unet") to SHA-256, in the picture's receipt (the record in a PNG
    of how it was drawn) and of the loaded model. Each Difference has the network's name and the
    first 10 hex digits of both hashes.
    """
    names = dict.fromkeys([*then, *now])
    pairs = [(n, then.get(n, "")[:10], now.get(n, "")[:10]) for n in names]
    return tuple(Difference(*p) for p in pairs if then.get(p[0]) != now.get(p[0]))


def environment_differences(then: dict[str, str], now: dict[str, str]) -> tuple[Difference, ...]:
    """Return in what the environment differs from that in which a picture was drawn.

    then, now: from the name of a property ("device", "attention", "torch") to its value, in the
    picture's receipt (the record in a PNG of how it was drawn) and on this machine.
    """
    names = dict.fromkeys([*now, *then])
    rows = (Difference(n[:60], short(then.get(n, "")), now.get(n, "")) for n in names)
    return tuple(row for row in rows if row.then != row.now)


def file_differences(then: str, now: str) -> tuple[Difference, ...]:
    """Return in which hashes of LoRAs and embeddings two A1111 parameters texts differ.

    then, now: the texts of a picture and of the same picture drawn again. The result has at most
    two differences: "lora" for the field "Lora hashes", "embedding" for "TI hashes".
    """
    old, new = infotext.parse(then), infotext.parse(now)
    rows = (
        Difference(what, short(old.get(name, "")), new.get(name, ""))
        for what, name in FILES.items()
    )
    return tuple(row for row in rows if row.then != row.now)


def texts_agree(then: str, now: str, same_version: bool) -> bool:
    """Return whether two A1111 parameters texts have the same settings.

    then, now: the texts of a picture and of the same picture drawn again. Model, autoencoder,
    version and hashes are not compared. same_version: whether the same version of this program
    wrote both; if not, only the fields that both texts have are compared.
    """
    old, new = infotext.parse(then), infotext.parse(now)
    if same_version:
        names = {*old, *new} - COMPARED_ELSEWHERE
    else:
        names = ({*old} & {*new}) - COMPARED_ELSEWHERE
    return all(old.get(name) == new.get(name) for name in names)


def pixel_difference(then: Image.Image, now: Image.Image) -> PixelDifference | None:
    """Return how much the RGB values of two pictures differ; None where their sizes differ."""
    import numpy as np

    if then.size != now.size:
        return None
    a, b = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (then, now))
    difference = np.abs(a - b)
    return PixelDifference(
        float(difference.mean()), int(difference.max()), float(difference.any(-1).mean())
    )


def difference_image(then: Image.Image, now: Image.Image) -> Image.Image | None:
    """Return a grey picture (mode L) that shows where two pictures differ, or None.

    Each pixel is the largest difference of its three colours, scaled so that the largest in the
    picture is 255. None where the pictures are equal or their sizes differ.
    """
    from PIL import ImageChops

    if then.size != now.size:
        return None
    bands = ImageChops.difference(then.convert("RGB"), now.convert("RGB")).split()
    difference = ImageChops.lighter(ImageChops.lighter(*bands[:2]), bands[2])
    largest = cast(int, difference.getextrema()[1])  # of a picture of one band
    return difference.point([min(255, v * 255 // largest) for v in range(256)]) if largest else None
