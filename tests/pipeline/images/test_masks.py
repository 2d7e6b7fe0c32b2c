"""Masks against slow references, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.errors import InputError
from pipeline.images import masks
from pipeline.images.masks import (
    box,
    composite,
    extend,
    feather,
    fill,
    latent_mask,
    open_mask,
    padded_box,
)

SEEDS = st.integers(0, 2**32 - 1)


def noisy(width=40, height=30, seed=0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))


def painted(width=40, height=30, *boxes) -> Image.Image:
    """A mask of `boxes`, left, top, right, bottom, their ends exclusive."""
    mask = Image.new("L", (width, height))
    for left, top, right, bottom in boxes:
        mask.paste(255, (left, top, right, bottom))
    return mask


def blots(width, height, seed) -> Image.Image:
    """A random mask of discs and strokes."""
    rng = np.random.default_rng(seed)
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.integers(1, 4)):
        x, y, a, b = (rng.uniform(0, side) for side in (width, height) * 2)
        draw.line((x, y, a, b), 255, int(rng.integers(1, 5)))
        r = rng.uniform(0, min(width, height) / 3)
        draw.ellipse((x - r, y - r, x + r, y + r), 255)
    return mask


def hole(mask) -> np.ndarray:
    return np.asarray(mask) >= 128


def test_levels_of_128_and_up_are_repainted(tmp_path):
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    for given_ in (grey, grey.convert("RGB"), grey.convert("RGBA")):
        mask = open_mask(given_, (16, 16))
        assert mask.mode == "L" and type(mask) is Image.Image
        assert (np.asarray(mask) == np.where(np.asarray(grey) >= 128, 255, 0)).all()
    grey.save(tmp_path / "m.png")
    assert open_mask(tmp_path / "m.png", (16, 16)).tobytes() == mask.tobytes()
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert open_mask(deep, (16, 16)).tobytes() == mask.tobytes()
    assert open_mask(mask.convert("1"), (16, 16)).tobytes() == mask.tobytes()
    assert open_mask(mask, (16, 16)).tobytes() == mask.tobytes()


def test_transparency_of_a_mask_is_black():
    alpha = painted(40, 30, (5, 6, 20, 21))
    layer = Image.new("RGBA", (40, 30), "white")
    layer.putalpha(alpha)
    assert open_mask(layer, (40, 30)).tobytes() == alpha.tobytes()
    layer.putalpha(alpha.point(lambda v: v // 2))  # 127 of 255: less than half
    with pytest.raises(InputError, match="empty"):
        open_mask(layer, (40, 30))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (painted(40, 30), "^The mask is empty: paint what is to be repainted.$"),
        (painted(41, 30, (1, 1, 9, 9)), "41 x 30 pixels and the picture 40 x 30;"),
        (painted(30, 40, (1, 1, 9, 9)), "30 x 40 .* 40 x 30; they must have the same size.$"),
        ("absent.png", "^The mask absent.png does not exist.$"),
        (None, "^The mask must be a file or a PIL image, not None.$"),
    ],
)
def test_what_is_no_mask(value, said):
    with pytest.raises(InputError, match=said) as caught:
        open_mask(value, (40, 30))
    assert "\n" not in str(caught.value)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_box(seed):
    mask = blots(30, 20, seed)
    ys, xs = np.nonzero(hole(mask))
    assert box(mask) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_an_empty_mask_has_no_box():
    for work in (box, lambda m: padded_box(m, 3, 1.0)):
        with pytest.raises(InputError, match="empty"):
            work(painted())


@pytest.mark.parametrize(
    ("at", "padding", "aspect", "expected"),
    [
        ((40, 40, 60, 60), 0, 1.0, (40, 40, 60, 60)),
        ((40, 40, 60, 60), 10, 1.0, (30, 30, 70, 70)),
        ((40, 40, 60, 60), 10, 2.0, (10, 30, 90, 70)),
        ((40, 40, 60, 60), 10, 0.5, (30, 10, 70, 90)),
        ((0, 40, 20, 60), 10, 2.0, (0, 30, 80, 70)),  # moved from the border
        ((90, 90, 100, 100), 0, 2.0, (80, 90, 100, 100)),
        ((10, 40, 90, 60), 0, 0.5, (10, 0, 90, 100)),  # cut: the picture is too low
        ((0, 0, 100, 100), 32, 1.5, (0, 0, 100, 100)),
    ],
)
def test_padded_box(at, padding, aspect, expected):
    assert padded_box(painted(100, 100, at), padding, aspect) == expected
    assert padded_box(painted(100, 100, at), padding, aspect, (100, 100)) == expected


@given(SEEDS, st.integers(0, 60), st.floats(0.2, 5))
@settings(max_examples=60, deadline=None)
def test_padded_box_holds_the_mask_within_the_picture(seed, padding, aspect):
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(20, 150, 2))
    mask = blots(width, height, seed)
    inner = box(mask)
    left, top, right, bottom = padded_box(mask, padding, aspect)
    assert 0 <= left <= max(0, inner[0] - padding) and 0 <= top <= max(0, inner[1] - padding)
    assert min(width, inner[2] + padding) <= right <= width
    assert min(height, inner[3] + padding) <= bottom <= height
    wide, high = right - left, bottom - top
    if wide < width and high < height:
        assert abs(wide - high * aspect) <= 0.5 + aspect / 2


def edge_distance(inside: np.ndarray) -> np.ndarray:
    """Pixels to the nearest one outside, one by one."""
    out = np.argwhere(~inside)
    found = np.zeros(inside.shape)
    for y, x in np.argwhere(inside):
        found[y, x] = np.sqrt(((out - (y, x)) ** 2).sum(1).min())
    return found


@given(SEEDS, st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_feather(seed, radius):
    mask = blots(36, 28, seed)
    inside = hole(mask)
    alpha = feather(mask, radius)
    assert alpha.shape == (28, 36) and alpha.dtype == np.float32
    assert (alpha[~inside] == 0).all() and (alpha[inside] > 0).all() and alpha.max() <= 1
    if not inside.all():
        depth = edge_distance(inside)
        assert np.allclose(alpha[depth >= radius + 1], 1, atol=1e-5)
        # Never later than the plain ramp of `radius` pixels.
        t = np.clip(depth / (radius + 1), 0, 1)
        assert (alpha >= t * t * (3 - 2 * t) - 1e-5).all()


def test_the_ramp_of_a_straight_edge():
    alpha = feather(painted(200, 120, (50, 0, 200, 120)), 8)
    t = np.arange(1, 10) / 9
    assert np.allclose(alpha[60, 50:59], t * t * (3 - 2 * t), atol=1e-4)
    assert alpha[60, 49] == 0 and (alpha[:, 60:] > 0.9999).all()  # the picture's border is no edge


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_the_middle_of_a_thin_stroke_is_repainted(width):
    stroke = painted(120, 60, (20, 20, 100, 20 + width))
    assert feather(stroke, 16)[20 + (width - 1) // 2, 30:90] == pytest.approx(1, abs=1e-4)
    beside = painted(120, 60, (20, 20, 100, 20 + width), (10, 30, 110, 58))
    assert feather(beside, 4)[20 + (width - 1) // 2, 30:90] == pytest.approx(1, abs=0.05)
    # A stroke that leaves a blob is thin all the same, some way off.
    joined = painted(160, 60, (60, 20, 150, 20 + width), (0, 0, 60, 60))
    assert feather(joined, 8)[20 + (width - 1) // 2, 80:140].min() > 0.9


@given(SEEDS, st.sampled_from([1, 4, 20]))
@settings(max_examples=6, deadline=None)
def test_feather_in_pieces_is_that_in_one(seed, radius):
    mask = blots(420, 300, seed)
    inside = hole(mask)
    if not inside.all():
        whole = masks._ramp(inside, radius + 1)
        assert np.abs(feather(mask, radius) - whole).max() < 1e-5


def test_whole_and_empty_masks():
    assert (feather(painted(20, 10, (0, 0, 20, 10)), 5) == 1).all()
    assert (feather(painted(20, 10), 5) == 0).all()


@given(SEEDS, st.integers(0, 6))
@settings(max_examples=20, deadline=None)
def test_composite_keeps_what_is_outside(seed, radius):
    old, new, mask = noisy(seed=seed), noisy(seed=seed + 1), blots(40, 30, seed)
    alpha = feather(mask, radius)
    got = composite(old, new, alpha)
    assert got.mode == "RGB"
    a, b = np.asarray(old).astype(float), np.asarray(new).astype(float)
    got = np.asarray(got)
    assert (got[~hole(mask)] == np.asarray(old)[~hole(mask)]).all()
    assert (got[alpha == 1] == np.asarray(new)[alpha == 1]).all()
    assert np.abs(got - (a + (b - a) * alpha[..., None])).max() <= 0.51


@given(SEEDS, st.sampled_from([(64, 64), (40, 32), (96, 24), (16, 48)]), st.sampled_from([4, 8]))
@settings(max_examples=30, deadline=None)
def test_latent_mask(seed, size, factor):
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(8, 70, 2))
    mask = Image.fromarray(((rng.random((height, width)) < 0.02) * 255).astype(np.uint8))
    wide, high = size[0] // factor, size[1] // factor
    expected = np.zeros((high, wide))
    # A pixel and a cell meet where their intervals overlap; both in units of 1 / (side * scaled).
    for y, x in np.argwhere(hole(mask)):
        for j in range(high):
            for i in range(wide):
                over = x * size[0] < (i + 1) * factor * width
                over &= (x + 1) * size[0] > i * factor * width
                over &= y * size[1] < (j + 1) * factor * height
                over &= (y + 1) * size[1] > j * factor * height
                expected[j, i] = max(expected[j, i], over)
    got = latent_mask(mask, *size, factor)
    assert got.shape == (1, 1, high, wide) and str(got.dtype) == "torch.float32"
    assert (got[0, 0].numpy() == expected).all()


def test_no_pixel_is_lost_in_a_large_mask():
    mask = Image.new("L", (3000, 2000))
    mask.putpixel((1777, 1234), 255)
    got = latent_mask(mask, 512, 512, 8)[0, 0].numpy()
    assert got.sum() == 1 and got[1234 * 64 // 2000, 1777 * 64 // 3000] == 1


def test_extend_keeps_the_old_area_and_marks_the_new():
    image = noisy(50, 40)
    canvas, mask = extend(image, 10, 0, 70, 33, seed=5)
    assert canvas.size == mask.size == (130, 73) and (canvas.mode, mask.mode) == ("RGB", "L")
    assert canvas.crop((10, 0, 60, 40)).tobytes() == image.tobytes()
    expected = np.full((73, 130), 255)
    expected[:40, 10:60] = 0
    assert (np.asarray(mask) == expected).all()
    again = extend(image, 10, 0, 70, 33, seed=5)[0]
    assert again.tobytes() == canvas.tobytes()
    other = extend(image, 10, 0, 70, 33, seed=6)[0]
    assert other.tobytes() != canvas.tobytes()
    hurt = painted(50, 40, (3, 4, 12, 13))
    both = np.asarray(extend(image, 10, 0, 70, 33, mask=hurt)[1])
    expected[:40, 10:60] = np.asarray(hurt)
    assert (both == expected).all()


def test_the_margins_continue_the_edge_and_blur_and_roughen_outwards():
    image = Image.new("RGB", (64, 64), (200, 40, 90))
    new = np.asarray(extend(image, 0, 0, 200, 0)[0])[:, 64:].astype(float)
    assert np.abs(new.mean((0, 1)) - (200, 40, 90)).max() < 1
    assert new[:, 0].std(0).max() < 1 < 8 < new[:, 150].std(0).min()
    striped = np.zeros((128, 64, 3), np.uint8)
    striped[::2] = 255
    new = np.asarray(extend(Image.fromarray(striped), 200, 0, 0, 0)[0]).astype(float)
    contrast = [np.abs(np.diff(new[20:-20, x].mean(1))).mean() for x in (199, 0)]
    assert contrast[0] > 180 and contrast[1] < 40


def test_margins_out_of_range():
    image = noisy()
    for wrong in (-1, 1025, 2.5, True):
        with pytest.raises(InputError, match=r"^right must be a whole number from 0 to 1024"):
            extend(image, 8, 0, wrong, 0)
    with pytest.raises(InputError, match="nothing to paint on"):
        extend(image, 0, 0, 0, 0)
    with pytest.raises(InputError, match="8024 x 7000 pixels; at most 50,000,000"):
        extend(Image.new("L", (7000, 7000)), 1024, 0, 0, 0)


@given(SEEDS, st.sampled_from(sorted(masks.FILLS)))
@settings(max_examples=25, deadline=None)
def test_fill_changes_nothing_outside(seed, how):
    image, mask = noisy(37, 29, seed), blots(37, 29, seed)
    got = np.asarray(fill(image, mask, how, seed))
    assert (got[~hole(mask)] == np.asarray(image)[~hole(mask)]).all()
    assert got.tobytes() == fill(image, mask, how, seed).tobytes()
    assert how != "original" or got.tobytes() == image.tobytes()


@pytest.mark.parametrize("most", [4_000_000, 500])
def test_fill_spreads_the_colours_around(monkeypatch, most):
    monkeypatch.setattr(masks, "SPREAD_PIXELS", most)
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :64], pixels[:, 64:] = (220, 30, 40), (20, 60, 230)
    mask = painted(128, 64, (8, 8, 120, 56))
    pixels[hole(mask)] = (0, 255, 0)  # nothing of what is under the mask may be seen
    got = np.asarray(fill(Image.fromarray(pixels), mask, "fill")).astype(int)
    assert np.abs(got[30, 12] - (220, 30, 40)).max() < 25
    assert np.abs(got[30, 115] - (20, 60, 230)).max() < 25
    assert got[..., 1].max() <= 60 and got[..., 0].max() <= 220
    assert np.abs(np.diff(got[32, 10:118], axis=0)).max() < 40  # no seam in between
    flat = fill(Image.new("RGB", (33, 21), (9, 99, 199)), painted(33, 21, (4, 4, 30, 20)), "fill")
    assert flat.getextrema() == ((9, 9), (99, 99), (199, 199))


def test_fill_of_a_whole_picture_is_grey_and_noise_is_seeded():
    image, whole = noisy(), painted(40, 30, (0, 0, 40, 30))
    assert fill(image, whole, "fill").getextrema() == ((127, 127),) * 3
    first, second = (np.asarray(fill(image, whole, "noise", seed)) for seed in (1, 2))
    assert (first != second).mean() > 0.9 and abs(first.mean() - 127.5) < 5 and first.std() > 65
    with pytest.raises(InputError, match="noise"):
        fill(image, whole, "nose")
