"""Convert between sRGB and CIELAB, recolour pictures at constant lightness, compare colours.

The conversion is that of 8-bit sRGB (IEC 61966-2-1), white D65, 2 degree observer, computed in
float64. Lab arrays have the shape (..., 3): L* from 0 to 100, a* and b* around 0. The white point
is the sum of the columns of TO_XYZ, so that greys have exactly a* = b* = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

TO_XYZ = np.array(  # linear sRGB to CIE XYZ
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
TO_XYZ /= TO_XYZ[1].sum()  # white has Y = 1 exactly, not to seven digits
TO_RGB = np.linalg.inv(TO_XYZ)
WHITE = TO_XYZ.sum(1)
EDGE = 6 / 29  # below it CIELAB replaces the cube root by a line
STRIP = 1 << 18  # pixels converted at a time, to bound the memory
HALVINGS = 14  # bisection steps that find a chroma to 0.01, far finer than 8 bits
# Of the guided filter: radius as a share of the shorter side, epsilon as a variance of L*/100.
RADIUS, EPS = 1 / 16, 1e-4


def _expand(v: np.ndarray) -> np.ndarray:
    """Convert sRGB values to linear light; both 0 to 1, any shape."""
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _compress(v: np.ndarray) -> np.ndarray:
    """Convert linear light to sRGB values; both 0 to 1, any shape."""
    return np.where(v <= 0.0031308, v * 12.92, 1.055 * np.maximum(v, 0) ** (1 / 2.4) - 0.055)


# Linear light of the 256 values of 8-bit sRGB.
LIGHT = _expand(np.arange(256) / 255)


def to_lab(rgb: Any) -> np.ndarray:
    """Convert sRGB to CIE Lab, an array (..., 3) of float64: L* 0 to 100, a* and b*.

    rgb: an array (..., 3) of uint8 (0 to 255) or float (0 to 1), or a PIL picture of mode RGB.
    """
    rgb = np.asarray(rgb)
    linear = LIGHT[rgb] if rgb.dtype == np.uint8 else _expand(rgb.astype(np.float64))
    xyz = linear @ (TO_XYZ / WHITE[:, None]).T
    f = np.where(xyz > EDGE**3, np.cbrt(xyz), xyz / (3 * EDGE**2) + 4 / 29)
    fx, fy, fz = np.moveaxis(f, -1, 0)
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], -1)


def _to_linear(lab: np.ndarray) -> np.ndarray:
    """Convert Lab (..., 3) to linear RGB (..., 3); values outside 0 to 1 are out of gamut."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    xyz = np.where(f > EDGE, f**3, 3 * EDGE**2 * (f - 4 / 29))
    return xyz @ (TO_RGB * WHITE).T


def to_rgb(lab: np.ndarray) -> np.ndarray:
    """Convert Lab (..., 3) to uint8 sRGB (..., 3), each channel clipped to the gamut."""
    return (_compress(_to_linear(lab).clip(0, 1)) * 255).round().astype(np.uint8)


def reduce_chroma(lab: np.ndarray) -> np.ndarray:
    """Bring Lab colours (N, 3) into the sRGB gamut by reducing chroma; L* and hue are unchanged.

    Returns a new array (N, 3). The chroma is the largest in the gamut, found by bisection.
    """
    lab = lab.copy()

    def in_gamut(colours: np.ndarray) -> np.ndarray:
        linear = _to_linear(colours)
        return np.all((linear > -1e-9) & (linear < 1 + 1e-9), axis=-1)

    outside = ~in_gamut(lab)
    far = lab[outside]
    low, high = np.zeros((len(far), 1)), np.ones((len(far), 1))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = in_gamut(far * np.concatenate([np.ones_like(middle), middle, middle], -1))[:, None]
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    far[:, 1:] *= low
    lab[outside] = far
    return lab


def grey(image: Image.Image) -> Image.Image:
    """Return an RGB picture in grey: L* of each pixel is unchanged, a* and b* become 0."""
    lab = to_lab(image)
    lab[..., 1:] = 0
    return Image.fromarray(to_rgb(lab))


def recolour(grey: Image.Image, coloured: Image.Image, *, edges: bool = False) -> Image.Image:
    """Return the RGB picture `grey` with the colours (a* and b*) of the RGB picture `coloured`.

    L* of every pixel of `grey` is kept to within 0.27, the error of rounding to 8 bits: colours
    outside the sRGB gamut lose chroma, not lightness. edges: whether a guided filter aligns the
    colours with the edges of `grey`; always done where the two pictures differ in size.
    """
    colours = to_lab(coloured)[..., 1:]
    edges = edges or coloured.size != grey.size
    slope, offset = (
        guided_filter(colours, _resize_lightness(grey, coloured.size)) if edges else (None, colours)
    )
    pixels = np.asarray(grey)
    height, width = pixels.shape[:2]
    out = np.empty_like(pixels)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        span = slice(top, min(top + rows, height))
        lab = to_lab(pixels[span])
        if slope is not None:
            light = lab[..., :1] / 100
            lab[..., 1:] = _resize_rows(slope, pixels, span) * light + _resize_rows(
                offset, pixels, span
            )
        else:
            lab[..., 1:] = offset[span]
        out[span] = to_rgb(reduce_chroma(lab.reshape(-1, 3)).reshape(lab.shape))
    return Image.fromarray(out)


def guided_filter(colours: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit colours as a local linear function of lightness: colours = slope * light + offset.

    So colours can be enlarged without crossing edges: resize slope and offset, then apply them to
    the lightness of the larger picture. colours: a* and b*, (h, w, 2). light: L*/100, (h, w).
    Returns slope and offset, (h, w, 2) each. Guided filter: He, Sun and Tang, TPAMI 2013; with
    enlarging: He and Sun, arXiv 1505.00996.
    """
    from scipy.ndimage import uniform_filter

    side = 2 * max(1, round(RADIUS * min(light.shape))) + 1

    def mean(x: np.ndarray) -> np.ndarray:
        return uniform_filter(x, (side, side, 1), mode="nearest")

    light = light[..., None]
    centre, average = mean(light), mean(colours)
    slope = (mean(light * colours) - centre * average) / (mean(light**2) - centre**2 + EPS)
    return mean(slope), mean(average - slope * centre)


def _resize_lightness(grey: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize the RGB picture `grey` to `size` (width, height); return its L*/100, (h, w)."""
    return to_lab(grey.resize(size, Image.Resampling.BOX))[..., 0] / 100


def _resize_rows(small: np.ndarray, pixels: np.ndarray, span: slice) -> np.ndarray:
    """Return some rows of `small` enlarged bilinearly to the size of `pixels`, to save memory.

    small: (h, w, 2). pixels: (H, W, 3), of which only the size is used. span: the rows of the
    result to return. Returns (rows, W, 2).
    """
    h, w = small.shape[:2]
    height, width = pixels.shape[:2]
    box = (0, span.start * h / height, w, span.stop * h / height)
    size = width, span.stop - span.start
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BILINEAR, box)
        for plane in np.moveaxis(small, -1, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1).astype(np.float64)


def delta_e76(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the CIE 1976 colour difference (...) of Lab colours (..., 3): Euclidean distance."""
    return np.linalg.norm(np.asarray(a) - np.asarray(b), axis=-1)


def delta_e2000(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the perceptual colour difference CIEDE2000 (...) of Lab colours (..., 3).

    Sharma, Wu and Dalal, Color Research and Application 30 (2005). Numbers in comments are those of
    its equations.
    """
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(x, np.float64), -1, 0) for x in (a, b))
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1 + (1 - np.sqrt(chroma**7 / (chroma**7 + 25.0**7))) / 2  # (4), (5)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)  # (6)
    h1, h2 = (np.degrees(np.arctan2(y, x)) % 360 for x, y in ((a1, b1), (a2, b2)))  # (7)
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    turn = np.where((turn == -180) & (h2 > h1), 180, turn)  # (10): exactly opposite hues
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))  # (11)
    total = h1 + h2
    far = np.abs(h1 - h2) > 180
    middle = np.where(far, total + np.where(total < 360, 360, -360), total) / 2
    middle = np.where(grey, total, middle)  # (14)
    light, mean = (l1 + l2) / 2, (c1 + c2) / 2
    weight = (  # (15)
        1
        - 0.17 * np.cos(np.radians(middle - 30))
        + 0.24 * np.cos(np.radians(2 * middle))
        + 0.32 * np.cos(np.radians(3 * middle + 6))
        - 0.20 * np.cos(np.radians(4 * middle - 63))
    )
    bend = 60 * np.exp(-(((middle - 275) / 25) ** 2))  # (16), doubled
    off = (light - 50) ** 2
    dl = (l2 - l1) / (1 + 0.015 * off / np.sqrt(20 + off))  # (18)
    dc = (c2 - c1) / (1 + 0.045 * mean)  # (19)
    dh = hue / (1 + 0.015 * mean * weight)  # (20)
    twist = -2 * np.sqrt(mean**7 / (mean**7 + 25.0**7)) * np.sin(np.radians(bend))  # (17), (21)
    return np.sqrt(dl**2 + dc**2 + dh**2 + twist * dc * dh)  # (22)
