"""Open, feather and scale inpainting masks; fill or extend the picture under them.

A mask is a PIL image of mode "L" and of the picture's size: 255 marks pixels to repaint, 0 those to
keep. NumPy, SciPy and PIL are imported when first needed.
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

MAX_MARGIN = 1024  # pixels that extend() adds to a side at most
BLURS = (4, 16, 64)  # radii in pixels; extend() blends each in over twice that distance
NOISE = 12  # standard deviation (of 255) of extend()'s noise, from FAR pixels away from the picture
FAR = 64
SPREAD_PIXELS = 4_000_000  # fill() works on larger pictures reduced to this many pixels
THICKNESSES = 8  # radii at which feather() measures the thickness of a mask


def open_mask(value: Any, size: tuple[int, int], what: str = "The mask") -> Image.Image:
    """Open an inpainting mask for a picture of `size` (width, height); return it in mode "L".

    Its pixels are 255 (repaint, from grey level 128 on) and 0 (keep, also where transparent).
    value: a path, PIL image or Picture. what: the mask's name at the beginning of error messages.
    Raises InputError where the mask cannot be opened, is of another size or empty.
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
    """Return the bounding box (left, top, right, bottom) of the pixels to repaint in a mask.

    what: the mask's name at the beginning of the error message. Raises InputError where no pixel is
    to be repainted.
    """
    found = mask.getbbox()
    if found is None:
        raise InputError(f"{what} is empty: paint what is to be repainted.")
    return found


def padded_box(
    mask: Image.Image, padding: int, aspect: float, size: tuple[int, int] | None = None
) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) to draw for A1111's inpaint area "only masked".

    It is the mask's bounding box, padded by `padding` pixels and enlarged to the aspect ratio
    `aspect` (width / height). It is moved so that it lies inside the picture, and cut off where
    the picture is too small. size: (width, height) of the picture, None for that of the mask.
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
    """Enlarge a span (start, end) to `length` around its middle and move it to lie inside 0..limit.

    Returns the new (start, end); its length is at most `limit`. All in pixels along one axis.
    """
    length = min(length, limit)
    start = min(max(0, start - (length - (end - start)) // 2), limit - length)
    return start, start + length


def feather(mask: Image.Image, radius: int) -> np.ndarray:
    """Return the opacity to lay an inpainted picture over the original: soft at the mask's edge.

    mask: mode "L", 255 where it was repainted. Returns (H, W) float32, 0 to 1: 0 outside the mask,
    rising smoothly to 1 over `radius` pixels inside its edge, over fewer where the mask is thinner,
    so that the middle of a thin stroke reaches 1, too. The picture's border does not count as an
    edge.
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
    """Return the soft-edged opacity of an inpainted area for one tile of a picture, float32 (h, w).

    It is 0 outside and rises to 1 inside. hole: bool (h, w), the pixels to repaint. most: distance
    from the edge in pixels at which the opacity reaches 1 at the latest.
    """
    import numpy as np
    from scipy.ndimage import distance_transform_edt as distances

    depth = distances(hole).astype(np.float32)
    reach = np.minimum(_thickness(hole, depth, most), most)
    share = np.clip(depth / np.maximum(reach, 1), 0, 1)
    return np.where(hole, share * share * (3 - 2 * share), 0)


def _thickness(hole: np.ndarray, depth: np.ndarray, most: int) -> np.ndarray:
    """Return how wide a mask's softened edge is, in pixels, for each pixel: float32 (h, w).

    It is half the mask's local thickness: about the radius of the largest disc inside the mask that
    covers the pixel, at most `most`. It is smoothed, so that there is no seam where the thickness
    changes. hole: bool (h, w), True in the mask. depth: distance of each pixel to the mask's edge,
    (h, w).
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
    """Lay `painted` over `original`, RGB pictures of one size, with opacity alpha (H, W), 0 to 1.

    Pixels of `original` where alpha is 0 stay unchanged bit for bit.
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
    """Return a mask at the resolution of latents: (1, 1, height // factor, width // factor).

    float32: 1 repaint, 0 keep. mask: mode "L", 255 repaint; it may be of another size. width,
    height: of the picture to draw, in pixels. factor: pixels per latent (8). A latent is 1 where
    any of its pixels is to be repainted, so that thin strokes are not lost.
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
    """Return which pixels of a mask belong to each latent, along one axis: (starts, ends).

    These are two int64 arrays with an item for each latent: the index of its first mask pixel, and
    one past its last. side: width or height of the mask in pixels. scaled: width or height of the
    picture to draw, to which the mask is scaled. factor: pixels of that picture per latent.
    """
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
    """Enlarge a picture by margins for outpainting; return it and the mask of the new pixels.

    left, top, right, bottom: width of the margins in pixels. They are filled by continuing the
    picture's edge, with more blur and noise (of `seed`) further away; the old pixels stay unchanged
    bit for bit. mask: a mask of `image` that is added to the returned one. Raises InputError for
    margins that are all 0 or above 1024 (MAX_MARGIN), and for more than 50 million pixels in all.
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
    """Write into the padding how far each pixel is from the picture, for outpainting.

    A mode for np.pad, which calls it for each row along an axis. It sets the padding at both ends
    of `row`, in place, to 1, 2, 3, ... outwards. widths: of the padding before and after, in
    pixels. axis and flags, which np.pad passes, are not used.
    """
    import numpy as np

    before, after = widths
    row[:before] = np.arange(before, 0, -1)
    row[len(row) - after :] = np.arange(1, after + 1)


def fill(
    image: Image.Image, mask: Image.Image, how: str = "original", seed: int = 0
) -> Image.Image:
    """Return an RGB picture with its masked pixels replaced, from which inpainting begins.

    Other pixels stay unchanged. how: A1111's "masked content": "original" replaces nothing; "fill"
    spreads the colours around the mask inwards; "noise" takes random colours from `seed`. Raises
    InputError for another value.
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
    """Return `pixels` (H, W, 3) with the colours around the mask spread into it.

    hole: bool (H, W), True in the mask. Where it covers the whole picture the result is grey.
    """
    import numpy as np
    from PIL import Image

    if hole.all():
        return np.full_like(pixels, 127)
    known = Image.fromarray(np.where(hole, 0, 255).astype(np.uint8))
    visible = Image.fromarray(np.where(hole[..., None], 0, pixels))
    factor = math.ceil(math.sqrt(hole.size / SPREAD_PIXELS))  # large pictures are reduced
    weight = np.asarray(known.reduce(factor), np.float32)[..., None] / 255
    filled = _fill_from_pyramid(np.asarray(visible.reduce(factor), np.float32), weight)
    small = Image.fromarray(np.clip(filled + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(small.resize(visible.size, Image.Resampling.BILINEAR))


def _fill_from_pyramid(colours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill a picture's unknown pixels with the colours around them, for inpainting ("pull-push").

    They are taken from the picture at half its size, recursively. known: (H, W, 1), 1 for known
    pixels, 0 for unknown ones, or between. colours: (H, W, 3), already multiplied by `known`.
    Returns (H, W, 3). Gortler et al., The Lumigraph, SIGGRAPH 1996.
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
    """Return the sums over 2 x 2 pixels of `values` (H, W, C); odd sides are padded with 0."""
    import numpy as np

    values = np.pad(values, ((0, values.shape[0] % 2), (0, values.shape[1] % 2), (0, 0)))
    values = values[::2] + values[1::2]
    return values[:, ::2] + values[:, 1::2]


def _noise(pixels: np.ndarray, hole: np.ndarray, seed: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, pixels.shape, np.uint8)


# From the values of fill()'s `how` to functions (pixels, hole, seed) -> pixels, (H, W, 3) uint8.
FILLS = {"original": lambda pixels, hole, seed: pixels, "fill": _spread_inwards, "noise": _noise}
