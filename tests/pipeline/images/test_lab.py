"""CIELAB against published numbers, gamut mapping against a slow search, lightness that is kept."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.images import lab as colour

# Sharma, Wu and Dalal (2005), table 1: two colours in Lab and their CIEDE2000.
PAIRS = """
50 2.6772 -79.7751  50 0 -82.7485  2.0425
50 3.1571 -77.2803  50 0 -82.7485  2.8615
50 2.8361 -74.0200  50 0 -82.7485  3.4412
50 -1.3802 -84.2814  50 0 -82.7485  1.0000
50 -1.1848 -84.8006  50 0 -82.7485  1.0000
50 -0.9009 -85.5211  50 0 -82.7485  1.0000
50 0 0  50 -1 2  2.3669
50 -1 2  50 0 0  2.3669
50 2.4900 -0.0010  50 -2.4900 0.0009  7.1792
50 2.4900 -0.0010  50 -2.4900 0.0010  7.1792
50 2.4900 -0.0010  50 -2.4900 0.0011  7.2195
50 2.4900 -0.0010  50 -2.4900 0.0012  7.2195
50 -0.0010 2.4900  50 0.0009 -2.4900  4.8045
50 -0.0010 2.4900  50 0.0010 -2.4900  4.8045
50 -0.0010 2.4900  50 0.0011 -2.4900  4.7461
50 2.5 0  50 0 -2.5  4.3065
50 2.5 0  73 25 -18  27.1492
50 2.5 0  61 -5 29  22.8977
50 2.5 0  56 -27 -3  31.9030
50 2.5 0  58 24 15  19.4535
50 2.5 0  50 3.1736 0.5854  1.0000
50 2.5 0  50 3.2972 0  1.0000
50 2.5 0  50 1.8634 0.5757  1.0000
50 2.5 0  50 3.2592 0.3350  1.0000
60.2574 -34.0099 36.2677  60.4626 -34.1751 39.4387  1.2644
63.0109 -31.0961 -5.8663  62.8187 -29.7946 -4.0864  1.2630
61.2901 3.7196 -5.3901  61.4292 2.2480 -4.9620  1.8731
35.0831 -44.1164 3.7933  35.0232 -40.0716 1.5901  1.8645
22.7233 20.0904 -46.6940  23.0331 14.9730 -42.5619  2.0373
36.4612 47.8580 18.3852  36.2715 50.5065 21.2231  1.4146
90.8027 -2.0831 1.4410  91.1528 -1.6435 0.0447  1.4441
90.9257 -0.5406 -0.9208  88.6381 -0.8985 -0.7239  1.5381
6.7747 -0.2908 -2.4247  5.8714 -0.0985 -2.2286  0.6377
2.0776 0.0795 -1.1350  0.9033 -0.0636 -0.5514  0.9082
"""

# Lindbloom's calculator, sRGB and D65.
LAB = {
    (255, 0, 0): (53.2408, 80.0925, 67.2032),
    (0, 255, 0): (87.7347, -86.1827, 83.1793),
    (0, 0, 255): (32.2970, 79.1875, -107.8602),
    (255, 255, 0): (97.1393, -21.5537, 94.4780),
    (0, 255, 255): (91.1132, -48.0875, -14.1312),
    (255, 0, 255): (60.3242, 98.2343, -60.8249),
    (255, 255, 255): (100, 0, 0),
    (0, 0, 0): (0, 0, 0),
    (119, 119, 119): (50.0344, 0, 0),
}
EXTREMES = [(0, 0, 0), (255, 255, 255), (1, 0, 0), (0, 0, 1), (3, 2, 1), *LAB]


def random_picture(rng, size, *, dark=False):
    pixels = rng.integers(0, 12 if dark else 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[0, : len(EXTREMES)] = np.array(EXTREMES, np.uint8)[: size[0]]
    return Image.fromarray(pixels)


def slow_lab(rgb):
    """One colour, 0..255, with plain floats and the constants of the standards."""
    r, g, b = (c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb)
    xyz = (
        (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047,
        0.2126729 * r + 0.7151522 * g + 0.0721750 * b,
        (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883,
    )
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize(("rgb", "lab"), LAB.items())
def test_published_colours(rgb, lab):
    assert np.abs(colour.to_lab(np.array(rgb, np.uint8)) - lab).max() < 2e-4


def test_a_slow_computation_of_single_colours_agrees():
    rgb = np.random.default_rng().integers(0, 256, (500, 3), dtype=np.uint8)
    assert np.abs(colour.to_lab(rgb) - [slow_lab(c) for c in rgb.tolist()]).max() < 1e-4


def test_bytes_and_numbers_from_0_to_1_are_the_same_colours():
    rgb = np.random.default_rng().integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(colour.to_lab(rgb), colour.to_lab(rgb / 255))


def test_every_8_bit_colour_comes_back():
    """All of 52 levels a channel, the darkest and the lightest among them."""
    levels = np.array([*range(5), *range(5, 255, 5), 254, 255][:57], np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1)
    assert np.array_equal(colour.to_rgb(colour.to_lab(cube)), cube)


def test_the_differences_of_sharma_and_others():
    rows = np.array([[float(x) for x in line.split()] for line in PAIRS.split("\n") if line])
    assert len(rows) == 34
    a, b, published = rows[:, :3], rows[:, 3:6], rows[:, 6]
    assert np.abs(colour.delta_e2000(a, b) - published).max() < 5.1e-5
    assert np.abs(colour.delta_e2000(b, a) - published).max() < 5.1e-5
    assert (colour.delta_e2000(a, a) == 0).all()


def test_the_difference_of_1976_is_the_distance():
    rng = np.random.default_rng()
    a, b = rng.normal(0, 40, (2, 5, 4, 3))
    assert colour.delta_e76(a, b).shape == (5, 4)
    assert colour.delta_e76(a, b)[3, 2] == pytest.approx(math.dist(a[3, 2], b[3, 2]))


def test_rounding_to_8_bits_cannot_move_lightness_by_half():
    """What `recolour` promises rests on this: half a step of all channels, everywhere in sRGB."""
    level = np.arange(256) / 255
    weights = colour.TO_XYZ[1]
    worst = 0.0
    light = [
        np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
        for v in (level, (level + 0.5 / 255).clip(max=1), (level - 0.5 / 255).clip(min=0))
    ]
    for red in range(0, 256, 3):
        heights = []
        for v in light:
            y = weights[0] * v[red] + weights[1] * v[:, None] + weights[2] * v
            heights.append(np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3))
        worst = max(worst, *(np.abs(h - heights[0]).max() for h in heights[1:]))
    assert 0.2 < worst < 0.27


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.booleans())
def test_lightness_is_kept_whatever_the_pictures(seed, dark, same_size, edges):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(8, 60, 2).tolist())
    other = size if same_size else tuple(rng.integers(8, 60, 2).tolist())
    ours, theirs = random_picture(rng, size, dark=dark), random_picture(rng, other)
    made = colour.recolour(ours, theirs, edges=edges)
    assert made.size == size and made.mode == "RGB"
    off = colour.to_lab(made)[..., 0] - colour.to_lab(ours)[..., 0]
    assert np.abs(off).max() < 0.27


def test_the_colours_of_a_picture_come_back_onto_its_own_grey():
    """Up to rounding, away from sRGB's edges: there another L* by 0.1 has fewer colours."""
    pixels = np.random.default_rng().integers(40, 216, (70, 90, 3), dtype=np.uint8)
    true = Image.fromarray(pixels)
    made = colour.recolour(colour.grey(true), true)
    assert np.abs(colour.to_lab(made) - colour.to_lab(true))[..., 1:].max() < 2
    assert colour.delta_e76(colour.to_lab(made), colour.to_lab(true)).mean() < 0.6


def test_grey_pictures_stay_as_they_are():
    grey = colour.grey(random_picture(np.random.default_rng(), (40, 30)))
    pixels = np.asarray(grey)
    assert (pixels == pixels[..., :1]).all()
    assert np.array_equal(np.asarray(colour.recolour(grey, grey)), pixels)
    assert np.array_equal(np.asarray(colour.grey(grey)), pixels)


def slow_within(lab):
    """The largest share of the chroma before sRGB ends, in steps of a thousandth."""
    for share in np.linspace(1, 0, 1001):
        colours = np.array([lab[0], lab[1] * share, lab[2] * share])
        fy = (colours[0] + 16) / 116
        f = np.array([fy + colours[1] / 500, fy, fy - colours[2] / 200])
        xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * colour.WHITE
        linear = np.linalg.solve(colour.TO_XYZ, xyz)
        if (linear > -1e-6).all() and (linear < 1 + 1e-6).all():
            return share
    return 0.0


def test_chroma_is_taken_away_only_as_far_as_needed():
    rng = np.random.default_rng()
    lab = np.column_stack([rng.uniform(2, 98, 150), rng.normal(0, 60, (150, 2))])
    made = colour.reduce_chroma(lab)
    assert np.array_equal(made[:, 0], lab[:, 0])
    shares = made[:, 1] / lab[:, 1]
    assert np.allclose(made[:, 2] / lab[:, 2], shares)  # the hue stays
    slow = np.array([slow_within(c) for c in lab])
    assert np.quantile(np.abs(shares - slow), 0.98) < 2e-3  # a few rays leave sRGB twice
    assert ((slow < 1) == (shares < 1)).mean() > 0.98 and 0.2 < (slow < 1).mean() < 0.95


def test_enlarged_colours_end_at_the_edges_of_the_picture():
    """Two fields whose border lies within a small pixel: colours by the guide, not by the blur."""
    true = Image.new("RGB", (300, 200), (180, 40, 40))
    ImageDraw.Draw(true).rectangle((137, 0, 300, 200), fill=(160, 220, 250))
    small = true.resize((48, 32), Image.Resampling.BOX)
    made = colour.to_lab(colour.recolour(colour.grey(true), small))
    blurred = true.resize((48, 32), Image.Resampling.BOX).resize(
        true.size, Image.Resampling.BICUBIC
    )
    plain = colour.to_lab(colour.recolour(colour.grey(true), blurred))
    near = np.s_[:, 130:145]
    errors = [colour.delta_e76(x, colour.to_lab(true))[near].mean() for x in (made, plain)]
    assert errors[0] < 5 and errors[0] < errors[1] / 2, errors


def test_a_picture_in_strips_is_the_picture_at_once(monkeypatch):
    rng = np.random.default_rng()
    ours, theirs = random_picture(rng, (61, 83)), random_picture(rng, (24, 32))
    whole = np.asarray(colour.recolour(ours, theirs)).astype(int)
    monkeypatch.setattr(colour, "STRIP", 61 * 7)
    strips = np.asarray(colour.recolour(ours, theirs)).astype(int)
    assert np.abs(whole - strips).max() <= 1


def slow_guided(colours, light, radius, eps):
    """He et al.'s equations, window by window."""
    h, w = light.shape
    pad = [np.pad(x, radius, mode="edge") for x in (light, colours)]
    slope, offset = np.empty((h, w)), np.empty((h, w))
    for y in range(h):
        for x in range(w):
            i, p = (q[y : y + 2 * radius + 1, x : x + 2 * radius + 1] for q in pad)
            slope[y, x] = (i * p - i.mean() * p.mean()).mean() / (i.var() + eps)
            offset[y, x] = p.mean() - slope[y, x] * i.mean()
    out = []
    for q in (slope, offset):
        q = np.pad(q, radius, mode="edge")
        out.append(
            [
                [q[y : y + 2 * radius + 1, x : x + 2 * radius + 1].mean() for x in range(w)]
                for y in range(h)
            ]
        )
    return np.array(out)


def test_the_guided_filter_against_windows_one_by_one():
    rng = np.random.default_rng()
    light, colours = rng.random((70, 66)), rng.normal(0, 30, (70, 66, 2))
    fast = colour.guided_filter(colours, light)
    slow = slow_guided(colours[..., 1], light, 4, colour.EPS)
    assert np.abs(fast[0][..., 1] - slow[0]).max() < 1e-8
    assert np.abs(fast[1][..., 1] - slow[1]).max() < 1e-8
