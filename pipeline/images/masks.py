"""Masks: which part of a picture is repainted, 255, and which stays as it is, 0.

Light at import, as pictures.py is. A mask is a PIL "L" image of 0 and 255 in the picture's size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import InputError, closest
from .open import MAX_PIXELS, open_picture

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

MAX_MARGIN = 1024  # pixels that extend() adds to a side
BLURS = (4, 16, 64)  # pixels; in extend() each takes over by twice that distance
NOISE = 12  # levels, its deviation in extend() at a distance of FAR pixels and more
FAR = 64
SPREAD_PIXELS = 4_000_000  # at which fill() works at most
THICKNESSES = 8  # how many widths of ramp feather() tells apart


def open_mask(value: Any, size: tuple[int, int], what: str = "The mask") -> Image.Image:
    """A mask for a picture of `size` (width, height), "L" of 0 and 255.

    Levels of 128 and up are to be repainted, what is transparent is black. Raises InputError in one
    sentence for another size and for an empty mask, and as pictures.open_picture does.
    """
    mask = open_picture(value, what, ground="black").image.convert("L")
    if mask.size != tuple(size):
        raise InputError(
            f"{what} is {mask.width} x {mask.height} pixels and the picture"
            f" {size[0]} x {size[1]}; they must have the same size."
        )
    mask = mask.point([0] * 128 + [255] * 128)
    box(mask, what)
    return mask


def box(mask: Image.Image, what: str = "The mask") -> tuple[int, int, int, int]:
    """left, top, right and bottom of what is to be repainted; InputError where that is nothing."""
    found = mask.getbbox()
    if found is None:
        raise InputError(f"{what} is empty: paint what is to be repainted.")
    return found


def padded_box(
    mask: Image.Image, padding: int, aspect: float, size: tuple[int, int] | None = None
) -> tuple[int, int, int, int]:
    """The part of a picture of `size` (the mask's own by default) that is drawn for "only masked".

    The mask's box, grown by `padding` pixels and then to `aspect`, width / height; moved where it
    would leave the picture, and cut only where the picture is too small. As A1111's inpainting.
    """
    width, height = size or mask.size
    left, top, right, bottom = box(mask)
    left, top = max(0, left - padding), max(0, top - padding)
    right, bottom = min(width, right + padding), min(height, bottom + padding)
    wide = max(right - left, round((bottom - top) * aspect))
    high = max(bottom - top, round((right - left) / aspect))
    left, right = _place_span(left, right, wide, width)
    top, bottom = _place_span(top, bottom, high, height)
    return left, top, right, bottom


def _place_span(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """`length` around the middle of start..end, moved into 0..limit."""
    length = min(length, limit)
    start = min(max(0, start - (length - (end - start)) // 2), limit - length)
    return start, start + length


def feather(mask: Image.Image, radius: int) -> np.ndarray:
    """How much of the new picture is seen, (H, W) float32 in 0..1.

    Exactly 0 outside the mask; inside it rises smoothly from the edge over `radius` pixels to 1.
    Where the mask is thinner the ramp is shorter, so that the middle of a stroke is 1, too. The
    picture's own border is no edge.
    """
    import numpy as np

    inside = np.asarray(mask) >= 128
    alpha = np.zeros(inside.shape, np.float32)
    if inside.all() or not inside.any() or radius <= 0:
        alpha[inside] = 1
        return alpha
    # In pieces, of which only those at an edge cost time. What is `halo` away changes nothing: a
    # disc, the edge that bounds it and the smoothing each reach radius + 1 at most.
    halo = 3 * (radius + 1)
    side = max(128, 2 * halo)
    left, top, right, bottom = box(mask)
    for y in range(top, bottom, side):
        for x in range(left, right, side):
            low, start = max(0, y - halo), max(0, x - halo)
            hole = inside[low : y + side + halo, start : x + side + halo]
            if hole.any():
                ramp = hole if hole.all() else _ramp(hole, radius + 1)
                piece = alpha[y : y + side, x : x + side]
                h, w = piece.shape
                piece[...] = ramp[y - low :, x - start :][:h, :w]
    return alpha


def _ramp(hole: np.ndarray, most: int) -> np.ndarray:
    """feather() of one piece; `most` is how far from the edge it reaches 1 at the latest."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt as distances

    depth = distances(hole).astype(np.float32)
    reach = np.minimum(_thickness(hole, depth, most), most)
    share = np.clip(depth / np.maximum(reach, 1), 0, 1)
    return np.where(hole, share * share * (3 - 2 * share), 0)


def _thickness(hole: np.ndarray, depth: np.ndarray, most: int) -> np.ndarray:
    """The radius, up to `most`, of about the largest disc within the hole that covers a pixel.

    depth: pixels to the hole's edge. Smoothed, so that where a stroke leaves a blob no seam stands.
    """
    import numpy as np
    from scipy.ndimage import distance_transform_edt as distances
    from scipy.ndimage import uniform_filter

    reach = hole.astype(np.float32)
    for radius in np.unique(np.geomspace(1, most, THICKNESSES).round())[1:]:
        middles = depth >= radius
        if not middles.any():
            break
        reach[hole & (distances(~middles) < radius)] = radius
    window = 2 * (most // 2) + 1
    weight = uniform_filter(hole.astype(np.float64), window, mode="constant")
    smooth = uniform_filter(reach.astype(np.float64) * hole, window, mode="constant")
    return np.where(hole, smooth / np.maximum(weight, 1e-9), 1).astype(np.float32)


def composite(original: Image.Image, painted: Image.Image, alpha: np.ndarray) -> Image.Image:
    """`painted` over `original`, both RGB of one size, by alpha (H, W) in 0..1; where that is 0 the
    original's pixels are the same bit for bit."""
    import numpy as np
    from PIL import Image

    old = np.asarray(original.convert("RGB"))
    new = np.asarray(painted.convert("RGB"))
    result = old.copy()
    at = alpha > 0  # the hole alone, which is often small, is worked out
    share = alpha[at][:, None].astype(np.float32)
    mixed = old[at] * (1 - share) + new[at] * share
    result[at] = (mixed + 0.5).astype(np.uint8)
    return Image.fromarray(result)


def latent_mask(mask: Image.Image, width: int, height: int, factor: int) -> torch.Tensor:
    """(1, 1, height // factor, width // factor) float32: 1 where any pixel of a latent's cell is in
    the mask, scaled to width x height; no stroke is too thin to be found."""
    import numpy as np
    import torch

    counts = np.pad((np.asarray(mask) >= 128).astype(np.int64), ((1, 0), (1, 0)))
    counts = counts.cumsum(0).cumsum(1)  # of mask pixels above and left of a corner
    top, bottom = _cells(mask.height, height, factor)
    left, right = _cells(mask.width, width, factor)
    rows = counts[bottom] - counts[top]
    found = (rows[:, right] - rows[:, left]) > 0
    return torch.from_numpy(found.astype(np.float32))[None, None]


def _cells(side: int, scaled: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel, exclusive, of a mask's `side` that each latent of `scaled` covers."""
    import numpy as np

    edges = np.arange(scaled // factor + 1) * factor * side
    return edges[:-1] // scaled, -(-edges[1:] // scaled)


def extend(
    image: Image.Image,
    left: int = 0,
    top: int = 0,
    right: int = 0,
    bottom: int = 0,
    mask: Image.Image | None = None,
    seed: int = 0,
) -> tuple[Image.Image, Image.Image]:
    """A picture with margins to paint on, in pixels, and the mask: 255 there and where `mask` is.

    The margins continue the picture's edge, the more blurred and noisy the further away. The old
    area is the same bit for bit. Raises InputError for margins out of range and too many pixels.
    """
    import numpy as np
    from PIL import Image, ImageFilter

    width, height = _extended_size(
        image.size, {"left": left, "top": top, "right": right, "bottom": bottom}
    )
    inner = (left, top, width - right, height - bottom)
    old = np.asarray(image.convert("RGB"))
    canvas = Image.fromarray(np.pad(old, ((top, bottom), (left, right), (0, 0)), mode="edge"))
    across = np.pad(np.zeros(image.width, np.float32), (left, right), _counted)
    down = np.pad(np.zeros(image.height, np.float32), (top, bottom), _counted)
    away = np.hypot(across, down[:, None])  # pixels to the old area
    for blur in BLURS:
        share = Image.fromarray((np.minimum(away / (2 * blur), 1) * 255).astype(np.uint8))
        canvas.paste(canvas.filter(ImageFilter.GaussianBlur(blur)), mask=share)
    pixels = np.array(canvas)
    at = away > 0
    noise = np.random.default_rng(seed).standard_normal((int(at.sum()), 3), np.float32)
    noise *= NOISE * np.minimum(away[at] / FAR, 1)[:, None]
    pixels[at] = np.clip(pixels[at] + noise + 0.5, 0, 255).astype(np.uint8)
    new = Image.new("L", (width, height), 255)
    new.paste(mask or 0, inner)
    return Image.fromarray(pixels), new


def _extended_size(size: tuple[int, int], margins: dict[str, int]) -> tuple[int, int]:
    for side, margin in margins.items():
        if isinstance(margin, bool) or margin != int(margin) or not 0 <= margin <= MAX_MARGIN:
            raise InputError(f"{side} must be a whole number from 0 to {MAX_MARGIN} pixels.")
    if not any(margins.values()):
        raise InputError("There is nothing to paint on: give pixels for at least one side.")
    width = size[0] + margins["left"] + margins["right"]
    height = size[1] + margins["top"] + margins["bottom"]
    if width * height > MAX_PIXELS:
        raise InputError(
            f"With its margins the picture has {width} x {height} pixels;"
            f" at most {MAX_PIXELS:,} in all are taken."
        )
    return width, height


def _counted(row: np.ndarray, widths: tuple[int, int], axis: int, flags: dict) -> None:
    """For np.pad: how far a value is from the old ones."""
    import numpy as np

    before, after = widths
    row[:before] = np.arange(before, 0, -1)
    row[len(row) - after :] = np.arange(1, after + 1)


def fill(
    image: Image.Image, mask: Image.Image, how: str = "original", seed: int = 0
) -> Image.Image:
    """What stands under the mask before it is painted; the picture elsewhere, bit for bit.

    how: "original"; "fill", the colours around, spread inwards; "noise", any colours, by `seed`.
    """
    import numpy as np
    from PIL import Image

    if how not in FILLS:
        raise InputError(f"What is masked can be filled by {closest(str(how)[:100], FILLS)}.")
    pixels = np.array(image.convert("RGB"))
    hole = np.asarray(mask) >= 128
    pixels[hole] = FILLS[how](pixels, hole, seed)[hole]
    return Image.fromarray(pixels)


def _spread(pixels: np.ndarray, hole: np.ndarray, seed: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    if hole.all():
        return np.full_like(pixels, 127)
    known = Image.fromarray(np.where(hole, 0, 255).astype(np.uint8))
    seen = Image.fromarray(np.where(hole[..., None], 0, pixels))
    share = math.ceil(math.sqrt(hole.size / SPREAD_PIXELS))  # large ones are filled at a share
    weight = np.asarray(known.reduce(share), np.float32)[..., None] / 255
    filled = _fill_from_pyramid(np.asarray(seen.reduce(share), np.float32), weight)
    small = Image.fromarray(np.clip(filled + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(small.resize(seen.size, Image.Resampling.BILINEAR))


def _fill_from_pyramid(colours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """colours (H, W, 3), weighted by `known` (H, W, 1) in 0..1, with what is unknown taken from the
    picture at half the size, itself filled: pull and push, Gortler et al., The Lumigraph, 1996."""
    import numpy as np
    from scipy.ndimage import uniform_filter

    here = colours / np.maximum(known, 1e-6)
    if known.min() >= 1 or max(known.shape) == 1:
        return here
    small, weight = _halve(colours), _halve(known)
    below = _fill_from_pyramid(small / np.maximum(weight, 1), np.minimum(weight, 1))
    below = below.repeat(2, 0).repeat(2, 1)[: known.shape[0], : known.shape[1]]
    below = uniform_filter(below, (3, 3, 1), mode="nearest")
    return here * known + below * (1 - known)


def _halve(values: np.ndarray) -> np.ndarray:
    """The sums of 2 x 2 values (H, W, C), the last ones alone where a side is odd."""
    import numpy as np

    values = np.pad(values, ((0, values.shape[0] % 2), (0, values.shape[1] % 2), (0, 0)))
    values = values[::2] + values[1::2]
    return values[:, ::2] + values[:, 1::2]


def _noise(pixels: np.ndarray, hole: np.ndarray, seed: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, pixels.shape, np.uint8)


FILLS = {"original": lambda pixels, hole, seed: pixels, "fill": _spread, "noise": _noise}
