"""Inpainting masks: open, feather and scale them, fill or extend the picture under them.

A mask is a PIL "L" image of the picture's size: 255 is repainted, 0 is kept. NumPy, SciPy and PIL
are imported when first needed.
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
BLURS = (4, 16, 64)  # radii in pixels; extend() blends each in over twice that distance
NOISE = 12  # standard deviation of the noise that extend() adds FAR pixels away and further
FAR = 64
SPREAD_PIXELS = 4_000_000  # fill() reduces larger pictures to this
THICKNESSES = 8  # radii at which feather() measures the thickness of a mask


def open_mask(value: Any, size: tuple[int, int], what: str = "The mask") -> Image.Image:
    """Open a mask for a picture of `size` (width, height); return it as "L" of 0 and 255.

    Levels from 128 are repainted; transparent pixels count as black. Raises InputError in one
    sentence for another size, for an empty mask, and where open_picture does.
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
    """Return the bounding box (left, top, right, bottom) of a mask; InputError for an empty one."""
    found = mask.getbbox()
    if found is None:
        raise InputError(f"{what} is empty: paint what is to be repainted.")
    return found


def padded_box(
    mask: Image.Image, padding: int, aspect: float, size: tuple[int, int] | None = None
) -> tuple[int, int, int, int]:
    """Return the box to draw for the inpaint area "only masked", as A1111 computes it.

    That is the mask's box, padded by `padding` pixels and grown to `aspect` (width / height). It is
    moved into the picture of `size`, by default the mask's, and cut only where that is too small.
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
    """Return a span of `length` with the centre of start..end, moved into 0..limit."""
    length = min(length, limit)
    start = min(max(0, start - (length - (end - start)) // 2), limit - length)
    return start, start + length


def feather(mask: Image.Image, radius: int) -> np.ndarray:
    """Return the opacity of the repainted picture, (H, W) float32 in 0 to 1.

    It is 0 outside the mask and rises smoothly to 1 over `radius` pixels inside its edge, over
    fewer where the mask is thinner, so that the middle of a stroke reaches 1. The picture's border
    does not count as an edge.
    """
    import numpy as np

    inside = np.asarray(mask) >= 128
    alpha = np.zeros(inside.shape, np.float32)
    if inside.all() or not inside.any() or radius <= 0:
        alpha[inside] = 1
        return alpha
    # Computed in blocks, because only those with an edge cost time. Pixels `halo` away have no
    # effect: a disc, the edge that bounds it and the smoothing each reach radius + 1 at most.
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
    """Return feather() of one block, which reaches 1 at most `most` pixels from the edge."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt as distances

    depth = distances(hole).astype(np.float32)
    reach = np.minimum(_thickness(hole, depth, most), most)
    share = np.clip(depth / np.maximum(reach, 1), 0, 1)
    return np.where(hole, share * share * (3 - 2 * share), 0)


def _thickness(hole: np.ndarray, depth: np.ndarray, most: int) -> np.ndarray:
    """Return for each pixel about the radius of the largest disc in the hole that covers it.

    At most `most`, and smoothed, so that the ramp has no seam where the thickness changes.
    depth: distance to the hole's edge in pixels.
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
    """Blend `painted` over `original`, both RGB of one size, by alpha (H, W) in 0 to 1.

    Where alpha is 0 the pixels of `original` are returned bit for bit.
    """
    import numpy as np
    from PIL import Image

    old = np.asarray(original.convert("RGB"))
    new = np.asarray(painted.convert("RGB"))
    result = old.copy()
    at = alpha > 0  # compute only where something changes
    share = alpha[at][:, None].astype(np.float32)
    mixed = old[at] * (1 - share) + new[at] * share
    result[at] = (mixed + 0.5).astype(np.uint8)
    return Image.fromarray(result)


def latent_mask(mask: Image.Image, width: int, height: int, factor: int) -> torch.Tensor:
    """Return the mask in latents, (1, 1, height // factor, width // factor) float32 of 0 and 1.

    The mask is scaled to width x height. A latent is 1 where any of its pixels is masked, so that
    thin strokes are not lost.
    """
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
    """Return the first and the last pixel, exclusive, of a mask's `side` under each latent."""
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
    """Return the picture with margins for outpainting, in pixels, and the mask of what is new.

    The margins continue the picture's edge, with more blur and noise further away; the old pixels
    are kept bit for bit. mask: of `image`, also masked in the result. Raises InputError for margins
    out of range and for too many pixels.
    """
    import numpy as np
    from PIL import Image, ImageFilter

    width, height = _extended_size(
        image.size, {"left": left, "top": top, "right": right, "bottom": bottom}
    )
    inner = (left, top, width - right, height - bottom)
    old = np.asarray(image.convert("RGB"))
    canvas = Image.fromarray(np.pad(old, ((top, bottom), (left, right), (0, 0)), mode="edge"))
    across = np.pad(np.zeros(image.width, np.float32), (left, right), _count_outwards)
    down = np.pad(np.zeros(image.height, np.float32), (top, bottom), _count_outwards)
    away = np.hypot(across, down[:, None])  # distance to the old picture in pixels
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


def _count_outwards(row: np.ndarray, widths: tuple[int, int], axis: int, flags: dict) -> None:
    """Fill the padding with the distance from the old values; a mode of np.pad."""
    import numpy as np

    before, after = widths
    row[:before] = np.arange(before, 0, -1)
    row[len(row) - after :] = np.arange(1, after + 1)


def fill(
    image: Image.Image, mask: Image.Image, how: str = "original", seed: int = 0
) -> Image.Image:
    """Return the picture with its masked pixels replaced, the others kept bit for bit.

    how: "original", nothing is replaced; "fill", by the colours around the mask, spread inwards;
    "noise", by random colours of `seed`.
    """
    import numpy as np
    from PIL import Image

    if how not in FILLS:
        raise InputError(f"What is masked can be filled by {closest(str(how)[:100], FILLS)}.")
    pixels = np.array(image.convert("RGB"))
    hole = np.asarray(mask) >= 128
    pixels[hole] = FILLS[how](pixels, hole, seed)[hole]
    return Image.fromarray(pixels)


def _spread_inwards(pixels: np.ndarray, hole: np.ndarray, seed: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    if hole.all():
        return np.full_like(pixels, 127)
    known = Image.fromarray(np.where(hole, 0, 255).astype(np.uint8))
    seen = Image.fromarray(np.where(hole[..., None], 0, pixels))
    share = math.ceil(math.sqrt(hole.size / SPREAD_PIXELS))  # large pictures are reduced
    weight = np.asarray(known.reduce(share), np.float32)[..., None] / 255
    filled = _fill_from_pyramid(np.asarray(seen.reduce(share), np.float32), weight)
    small = Image.fromarray(np.clip(filled + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(small.resize(seen.size, Image.Resampling.BILINEAR))


def _fill_from_pyramid(colours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill unknown pixels from the picture at half the size, recursively ("pull-push").

    colours: (H, W, 3), weighted by `known` (H, W, 1), 0 to 1. Gortler et al., The Lumigraph, 1996.
    """
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
    """Return the sums of 2 x 2 blocks of values (H, W, C); odd sides are padded with 0."""
    import numpy as np

    values = np.pad(values, ((0, values.shape[0] % 2), (0, values.shape[1] % 2), (0, 0)))
    values = values[::2] + values[1::2]
    return values[:, ::2] + values[:, 1::2]


def _noise(pixels: np.ndarray, hole: np.ndarray, seed: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, pixels.shape, np.uint8)


FILLS = {"original": lambda pixels, hole, seed: pixels, "fill": _spread_inwards, "noise": _noise}
