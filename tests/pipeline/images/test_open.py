"""Every kind of picture file is made here and read; references are worked out in NumPy."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, features

from pipeline.errors import InputError
from pipeline.images import open as pictures
from pipeline.images.open import (
    KINDS,
    MAX_PIXELS,
    Picture,
    fit_image,
    open_picture,
    to_tensor,
    working_size,
)
from pipeline.latents.vae import to_image

BUILT = [k for k in KINDS if k not in ("WEBP", "AVIF") or features.check(k.lower())]
EXACT = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "TIFF": {},
}
# A colour's way to these modes and back is rounded; in Lab, dark saturated ones by many levels.
ROUNDED = {"LAB": 40, "YCbCr": 3, "HSV": 10}
MODES = {  # what a format is written in here
    "PNG": ["1", "L", "LA", "I;16", "P", "RGB", "RGBA"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["1", "L", "P"],
    "BMP": ["1", "L", "P", "RGB"],
    "TIFF": ["1", "L", "LA", "I;16", "I", "F", "P", "RGB", "RGBA", "RGBX", "CMYK", "LAB"],
    "AVIF": ["L", "RGB", "RGBA"],
}


def smooth(size=(24, 16), mode="RGB", seed=0) -> Image.Image:
    """A random picture without sharp edges, which lossy formats keep well."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3)).astype(np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def noisy(size=(20, 12), channels=3, seed=0) -> Image.Image:
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))


def coded(image: Image.Image, kind: str, **flags) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **flags)
    return buffer.getvalue()


def written(folder: Path, data: bytes, name="cat.png") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def values(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def refused(value, *parts: str, what="The picture") -> str:
    """The one sentence that `value` is refused with."""
    with pytest.raises(InputError) as caught:
        open_picture(value, what)
    said = str(caught.value)
    assert "\n" not in said and said.isprintable() and len(said) < 300
    assert said[0].isupper() and said.endswith(".") and "Traceback" not in said
    for part in parts:
        assert part in said, said
    return said


def in_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(values(smooth(mode="L")).astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(values(smooth(mode="L")).astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray((values(smooth(mode="L")) / 255).astype(np.float32))
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(smooth(), srgb, lab, outputMode="LAB")
    if mode == "RGBX":
        return Image.merge("RGBX", (*smooth().split(), Image.new("L", (24, 16), 99)))
    return smooth().convert("L").convert(mode) if mode == "LA" else smooth(mode=mode)


def seen(mode: str) -> np.ndarray:
    """What in_mode(mode) shows, in RGB."""
    grey = ("L", "LA", "I;16", "I", "F")
    if mode in grey:
        return values(smooth(mode="L").convert("RGB"))
    if mode in ("1", "P"):
        return values(smooth(mode=mode).convert("RGB"))
    return values(smooth())


@pytest.mark.parametrize("kind", BUILT)
def test_each_format_in_each_mode(tmp_path, kind):
    for mode in MODES[kind]:
        path = written(tmp_path, coded(in_mode(mode), kind, **EXACT.get(kind, {})), "a.bin")
        got = open_picture(path)
        assert type(got.image) is Image.Image, mode
        assert (got.image.mode, got.image.size, got.image.info) == ("RGB", (24, 16), {}), mode
        assert got.notes == (), mode
        off = np.abs(values(got.image) - seen(mode))
        if kind in EXACT or kind == "GIF":
            assert off.mean() <= 1.5 and off.max() <= ROUNDED.get(mode, 0), (mode, off.max())
        else:
            assert off.mean() < 12, (mode, off.mean())
        assert values(open_picture(str(path)).image).tolist() == values(got.image).tolist()


ALL_MODES = "1 L LA La P PA I I;16 I;16B F RGB RGBA RGBa RGBX CMYK YCbCr HSV LAB"


@pytest.mark.parametrize("mode", ALL_MODES.split())
def test_pil_images_of_every_mode(mode):
    if mode == "I;16B":
        image = Image.frombytes("I;16B", (24, 16), values(in_mode("I;16")).astype(">u2").tobytes())
    elif mode == "La":
        image = in_mode("LA").convert("La")
    elif mode == "PA":
        image = in_mode("P").convert("PA")
    elif mode == "RGBa":
        image = in_mode("RGBA").convert("RGBa")
    else:
        image = in_mode(mode)
    assert image.mode == mode
    image.info["junk"] = "x"
    before = image.tobytes()
    got = open_picture(image)
    assert (got.image.mode, got.image.info, got.notes) == ("RGB", {}, ())
    expected = seen({"La": "L", "I;16B": "L", "PA": "P", "RGBa": "RGB"}.get(mode, mode))
    off = np.abs(values(got.image) - expected)
    assert off.mean() <= 1.5 and off.max() <= ROUNDED.get(mode, 0)
    got.image.paste((1, 2, 3), (0, 0, 5, 5))
    assert image.tobytes() == before and image.info["junk"] == "x"
    assert open_picture(got) is got


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    rng = np.random.default_rng(1)
    deep = rng.integers(0, 65536, (9, 11)).astype(np.uint16)
    deep[0, :5] = 0, 128, 129, 65535, 40000
    expected = np.floor(deep / 257 + 0.5).astype(int)
    for kind in ("PNG", "TIFF"):
        got = values(open_picture(written(tmp_path, coded(Image.fromarray(deep), kind))).image)
        assert (got == expected[..., None]).all()
    whole = values(open_picture(Image.fromarray(deep.astype(np.int32))).image)
    assert (whole == expected[..., None]).all()
    assert len(np.unique(expected)) > 60  # a clipped picture would be all but white


def deep_rgb(pixels: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits a channel from (H, W, 3) uint16."""
    h, w, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    return png((b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    told = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        told += struct.pack(">I", len(data)) + name + data
        told += struct.pack(">I", zlib.crc32(name + data))
    return told


def test_rgb_of_sixteen_bits_and_its_transparent_colour(tmp_path):
    deep = np.random.default_rng(2).integers(0, 65536, (10, 9, 3)).astype(np.uint16)
    got = values(open_picture(written(tmp_path, deep_rgb(deep))).image)
    assert np.abs(got - deep / 257).max() <= 1
    clear = (b"tRNS", deep[3, 4].astype(">u2").tobytes())
    shown = open_picture(written(tmp_path, deep_rgb(deep, clear)))
    assert shown.image.getpixel((4, 3)) == (255, 255, 255) and len(shown.notes) == 1
    rest = np.ones((10, 9), bool)
    rest[3, 4] = False
    assert (values(shown.image)[rest] == got[rest]).all()


def test_numbers_of_other_ranges():
    ramp = np.linspace(-3, 7, 100, dtype=np.float32).reshape(10, 10)
    got = open_picture(Image.fromarray(ramp))
    assert values(got.image)[0, 0, 0] == 0 and values(got.image)[-1, -1, 0] == 255
    assert len(got.notes) == 1 and "-3 to 7" in got.notes[0]
    eight = np.arange(100, dtype=np.float32).reshape(10, 10) * 2.5
    assert (values(open_picture(Image.fromarray(eight)).image)[..., 0] == (eight + 0.5) // 1).all()
    whole = np.arange(100, dtype=np.int32).reshape(10, 10) * 2
    assert (values(open_picture(Image.fromarray(whole)).image)[..., 1] == whole).all()
    huge = open_picture(Image.fromarray(whole * 10_000_000))
    assert huge.image.getextrema() == ((0, 255),) * 3 and len(huge.notes) == 1
    for bad in (np.nan, np.inf, -np.inf):
        ramp[4, 4] = bad
        refused(Image.fromarray(ramp), "finite")
        refused(Image.fromarray(ramp), "A mask", what="A mask")


def test_cmyk_and_ycck(tmp_path):
    inks = Image.merge("CMYK", [smooth((32, 32), "L", seed) for seed in range(4)])
    c, m, y, k = (values(inks)[..., i] for i in range(4))
    expected = np.stack([(255 - ink) * (255 - k) / 255 for ink in (c, m, y)], -1)
    exact = values(open_picture(written(tmp_path, coded(inks, "TIFF"))).image)
    assert np.abs(exact - expected).max() <= 1
    data = coded(inks, "JPEG", quality=95)
    assert np.abs(values(open_picture(written(tmp_path, data)).image) - expected).max() < 12
    # Adobe's marker ends in the transform: 2 says that the same numbers are YCCK.
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    ycck = data[:at] + b"\2" + data[at + 1 :]
    stored = 255 - values(Image.open(io.BytesIO(data)))  # as in the file: Adobe inverts
    luma, blue, red = stored[..., 0], stored[..., 1] - 128.0, stored[..., 2] - 128.0
    rgb = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    inverse = 255 - np.clip(np.stack(rgb, -1), 0, 255)
    ink = 255 - inverse
    expected = (255 - ink) * (255 - (255 - stored[..., 3]))[..., None] / 255
    turned = values(open_picture(written(tmp_path, ycck)).image)
    assert np.abs(turned - expected).max() <= 3


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_alpha_is_laid_on_the_ground(seed):
    layer = noisy((9, 8), 4, seed)
    colours, alpha = values(layer)[..., :3], values(layer)[..., 3:] / 255
    for ground, level in (("white", 255), ("black", 0)):
        got = open_picture(layer, ground=ground)
        expected = colours * alpha + level * (1 - alpha)
        assert np.abs(values(got.image) - expected).max() <= 0.5 + 1e-9
        assert len(got.notes) == 1 and ground in got.notes[0]
    layer.putalpha(255)
    assert open_picture(layer).notes == ()


def test_transparency_of_palettes_greys_and_single_colours(tmp_path):
    palette = noisy((16, 16)).quantize(16)
    at = values(palette)
    shown = values(palette.convert("RGB"))
    for kind in ("PNG", "GIF"):
        data = coded(palette, kind, transparency=3)
        got = open_picture(written(tmp_path, data))
        # A GIF's palette may be sorted anew, so where it is clear is asked of its own numbers.
        clear = (at == 3)[..., None]
        assert (values(got.image) == np.where(clear, 255, shown)).all(), kind
        assert len(got.notes) == 1
    half = coded(palette, "PNG", transparency=bytes([255] * 5 + [100] + [255] * 10))
    got = values(open_picture(written(tmp_path, half)).image)
    mixed = shown * 100 / 255 + 155
    assert np.abs(got - np.where((at == 5)[..., None], mixed, shown)).max() <= 0.5
    for image, clear in (
        (Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)), 42),
        (Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600), 42 * 600),
    ):
        got = open_picture(written(tmp_path, coded(image, "PNG", transparency=clear)))
        assert got.image.getpixel((2, 4)) == (255,) * 3 and len(got.notes) == 1
        assert got.image.getpixel((3, 4))[0] in (43, 43 * 600 // 257)
    colours = noisy((10, 10))
    clear = colours.getpixel((5, 5))
    got = open_picture(written(tmp_path, coded(colours, "PNG", transparency=clear)))
    assert got.image.getpixel((5, 5)) == (255,) * 3
    assert got.image.getpixel((0, 0)) == colours.getpixel((0, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [k for k in ("PNG", "JPEG", "WEBP", "TIFF") if k in BUILT])
def test_exif_turns_upright(tmp_path, kind, orientation):
    # Where pixel (x, y) of a picture stored as w x h is seen, by the EXIF standard's words.
    w, h = 32, 16
    places = {
        1: lambda x, y: (x, y),
        2: lambda x, y: (w - 1 - x, y),
        3: lambda x, y: (w - 1 - x, h - 1 - y),
        4: lambda x, y: (x, h - 1 - y),
        5: lambda x, y: (y, x),
        6: lambda x, y: (h - 1 - y, x),
        7: lambda x, y: (h - 1 - y, w - 1 - x),
        8: lambda x, y: (y, w - 1 - x),
    }
    image = smooth((w, h))
    exif = Image.Exif()
    exif[0x0112] = orientation
    flags = {"JPEG": {"quality": 100, "subsampling": 0}}.get(kind, EXACT.get(kind, {}))
    got = open_picture(written(tmp_path, coded(image, kind, exif=exif, **flags))).image
    assert got.size == ((w, h) if orientation < 5 else (h, w)) and got.info == {}
    off = max(
        abs(a - b)
        for x in range(w)
        for y in range(h)
        for a, b in zip(
            image.getpixel((x, y)), got.getpixel(places[orientation](x, y)), strict=True
        )
    )
    assert off <= (6 if kind == "JPEG" else 0)
    image.info["exif"] = exif.tobytes()
    assert open_picture(image).image.size == got.size


def test_damaged_exif_and_metadata_are_passed_over(tmp_path):
    image = noisy()
    for exif in (b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\0" * 40):
        data = coded(image, "PNG", exif=exif)
        assert values(open_picture(written(tmp_path, data)).image).tolist() == (
            values(image).tolist()
        )


def matrix_profile(folder: Path) -> bytes:
    """An RGB profile with red and blue exchanged: nobody could take it for sRGB."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    at = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = at[b"rXYZ"], at[b"bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def test_colours_follow_the_icc_profile(tmp_path):
    image = smooth()
    swapped = matrix_profile(tmp_path)
    for kind in ("PNG", "TIFF", "WEBP"):
        data = coded(image, kind, icc_profile=swapped, **EXACT[kind])
        got = values(open_picture(written(tmp_path, data)).image)
        assert np.abs(got - values(image)[..., ::-1]).max() <= 2, kind
    see_through = image.copy()
    see_through.putalpha(128)
    got = values(
        open_picture(written(tmp_path, coded(see_through, "PNG", icc_profile=swapped))).image
    )
    assert np.abs(got - (values(image)[..., ::-1] * 128 / 255 + 127)).max() <= 2


@pytest.mark.parametrize("profile", [b"junk", b"\0" * 128, "lab", "cut"])
def test_broken_or_strange_profiles_are_ignored(tmp_path, profile):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profile = {"lab": lab, "cut": srgb[: len(srgb) // 2]}.get(profile, profile)
    image = noisy()
    data = coded(image, "PNG", icc_profile=profile)
    assert values(open_picture(written(tmp_path, data)).image).tolist() == values(image).tolist()


def test_an_srgb_profile_changes_no_bit(tmp_path):
    image = noisy((64, 64))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = bytearray(srgb)  # one whose red is a hair off, as those of different makers are
    count = struct.unpack_from(">I", srgb, 128)[0]
    tags = [struct.unpack_from(">4sII", srgb, 132 + 12 * i) for i in range(count)]
    at = next(start for name, start, _ in tags if name == b"rXYZ") + 8
    struct.pack_into(">i", other, at, struct.unpack_from(">i", srgb, at)[0] + 60)
    for profile in (srgb, bytes(other)):
        data = coded(image, "PNG", icc_profile=profile)
        got = open_picture(written(tmp_path, data)).image
        assert values(got).tolist() == values(image).tolist()


@pytest.mark.parametrize("kind", [k for k in ("GIF", "PNG", "WEBP", "TIFF", "AVIF") if k in BUILT])
def test_of_several_frames_the_first(tmp_path, kind):
    frames = [smooth(seed=s) for s in range(3)]
    flags = {"lossless": True} if kind == "WEBP" else {}
    data = coded(frames[0], kind, save_all=True, append_images=frames[1:], **flags)
    got = open_picture(written(tmp_path, data))
    assert len(got.notes) == 1 and "several frames; the first" in got.notes[0]
    off = [np.abs(values(got.image) - values(frame)).mean() for frame in frames]
    assert off[0] == min(off) and off[0] < 10
    assert (off[0] == 0) or kind in ("GIF", "AVIF")
    second = Image.open(io.BytesIO(data))
    second.seek(1)
    assert "number 2" in open_picture(second).notes[0]


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))


def test_a_claim_of_many_pixels_is_refused_before_decoding(tmp_path):
    for width, height in ((20000, 20000), (10000, 10000), (9000, 10000), (7072, 7072)):
        data = bomb(width, height)
        assert len(data) < 80
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            said = refused(written(tmp_path, data), "cat.png", f"{width} x {height}")
        assert f"{MAX_PIXELS:,}" in said and not told
    refused(written(tmp_path, bomb(20001, 100)), "20001 x 100", "20,000")
    refused(written(tmp_path, bomb(2**31 - 1, 2**31 - 1)), "cat.png")
    gif = bytearray(coded(noisy(channels=1), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    refused(written(tmp_path, bytes(gif), "a.gif"), "a.gif", "65535 x 65535")
    bmp = bytearray(coded(noisy(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 30000, 30000)
    refused(written(tmp_path, bytes(bmp), "a.bmp"), "a.bmp", "30000 x 30000")
    refused(Image.new("1", (7100, 7100)), "7100 x 7100")
    assert open_picture(Image.new("1", (5000, 10))).image.size == (5000, 10)


@pytest.mark.parametrize("size", [(7, 100), (100, 7), (1, 1), (0, 9), (20001, 8)])
def test_sides(size):
    refused(Image.new("L", size), f"{size[0]} x {size[1]}", "8 to 20,000")


def test_what_is_no_picture(tmp_path):
    refused(written(tmp_path, b"hello there\n" * 50, "notes.txt"), "notes.txt", "PNG, JPEG")
    refused(written(tmp_path, b"", "void.png"), "void.png is empty")
    refused(tmp_path / "absent.png", "absent.png does not exist")
    refused(tmp_path, tmp_path.name, "folder")
    refused("a\0b.png", "NUL")
    refused("\ud800.png", "picture")
    refused("x" * 5000, "cannot be read")
    for nothing in ("", "  "):
        refused(nothing, "missing")
    for strange in (None, 3, b"abc.png", [1], {"path": "x"}, float("nan")):
        refused(strange, "must be a file or a PIL image")
    long = tmp_path / "deep" / "er"
    long.mkdir(parents=True)
    assert "deep" not in refused(written(long, b"x", "a.png"))
    assert refused(written(tmp_path, b"x", "a\nb.png"), "a?b.png")
    assert refused(tmp_path / "q.png", what="The picture q.png").count("q.png") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "pipe.png is not a file")
    refused("/dev/zero", "not a file")


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PCX", "EPS", "JPEG2000", "DDS", "SGI"])
def test_other_plugins_are_never_asked(tmp_path, kind):
    refused(written(tmp_path, coded(noisy((16, 16)), kind), "a.png"), "a.png", "PNG, JPEG")


def test_a_large_file_and_a_jpeg_of_many_scans(tmp_path, monkeypatch):
    data = coded(noisy(), "JPEG", progressive=True)
    assert open_picture(written(tmp_path, data)).image.size == (20, 12)
    start = data.rindex(b"\xff\xda")
    end = data.rindex(b"\xff\xd9")
    many = data[:end] + data[start:end] * 101 + data[end:]
    refused(written(tmp_path, many), "100 scans")
    monkeypatch.setattr(pictures, "MAX_BYTES", 1_000_000)
    refused(written(tmp_path, b"\x89PNG" + bytes(1_000_000)), "cat.png", "1 MB")


def image_or_sentence(path: Path) -> None:
    try:
        got = open_picture(path)
    except InputError as error:
        assert str(error).startswith("The picture cat.png ") and "\n" not in str(error)
    else:
        assert got.image.mode == "RGB" and min(got.image.size) >= 8


@pytest.mark.parametrize("kind", BUILT)
def test_cut_anywhere(tmp_path, kind):
    data = coded(smooth((40, 40), "P" if kind == "GIF" else "RGB"), kind)
    for end in sorted(
        {*range(1, min(len(data), 40), 2), *range(40, len(data), len(data) // 25 + 1)}
    ):
        image_or_sentence(written(tmp_path, data[:end]))
    refused(written(tmp_path, data[: len(data) // 2]), "cat.png")


@pytest.mark.parametrize("kind", BUILT)
def test_bytes_changed_anywhere(tmp_path, kind):
    data = coded(noisy((16, 16)), kind)
    dice = random.Random(kind)
    for _ in range(30):
        hurt = bytearray(data)
        for _ in range(dice.randint(1, 6)):
            hurt[dice.randrange(min(len(hurt), dice.choice((64, 10**6))))] = dice.randrange(256)
        image_or_sentence(written(tmp_path, bytes(hurt)))


@given(st.binary(max_size=300), st.sampled_from([b"", b"GIF89a", b"II*\0", b"\xff\xd8", b"BM"]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_bytes(tmp_path, data, head):
    image_or_sentence(written(tmp_path, head + data))


def test_python_says_nothing_of_damaged_tags(tmp_path, capsys, caplog):
    data = bytearray(coded(noisy(), "TIFF", compression="tiff_lzw"))
    for at in range(8, len(data), 23):
        hurt = data.copy()
        hurt[at] ^= 255
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            image_or_sentence(written(tmp_path, bytes(hurt)))
        assert not told
    assert capsys.readouterr() == ("", "") and not caplog.records


def test_tiff_of_other_layouts(tmp_path):
    image = smooth((32, 32))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        data = coded(image, "TIFF", compression=compression)
        got = open_picture(written(tmp_path, data)).image
        assert values(got).tolist() == values(image).tolist()
    lossy = open_picture(written(tmp_path, coded(image, "TIFF", compression="jpeg"))).image
    assert np.abs(values(lossy) - values(image)).mean() < 12
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    turned = open_picture(written(tmp_path, coded(noisy((9, 17)), "TIFF", tiffinfo=tags))).image
    assert values(turned).tolist() == values(noisy((9, 17)).rotate(-90, expand=True)).tolist()


def test_import_is_light():
    code = (
        "import sys, pipeline.images.open; "
        "print([m for m in ('PIL.Image', 'numpy', 'torch', 'scipy') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_crop_covers_and_cuts_both_sides_alike():
    image = noisy((40, 20))
    expected = image.crop((10, 0, 30, 20))
    assert values(fit_image(image, 20, 20)).tolist() == values(expected).tolist()
    theirs = ImageOps.fit(image, (13, 17), Image.Resampling.LANCZOS)
    assert np.abs(values(fit_image(image, 13, 17)) - values(theirs)).max() <= 1
    assert values(fit_image(image, 40, 20, "pad")).tolist() == values(image).tolist()


def test_stretch_and_pad():
    image = noisy((40, 20))
    small = image.resize((16, 32), Image.Resampling.LANCZOS)
    assert values(fit_image(image, 16, 32, "stretch")).tolist() == values(small).tolist()
    got = values(fit_image(image, 40, 50, "pad"))
    assert (got[15:35] == values(image)).all()
    assert (got[:15] == values(image)[0]).all() and (got[35:] == values(image)[-1]).all()
    with pytest.raises(InputError, match="crop, "):
        fit_image(image, 8, 8, "crops")


@given(st.tuples(*[st.integers(8, 300)] * 4), st.sampled_from(["crop", "stretch", "pad"]))
@settings(max_examples=40, deadline=None)
def test_fitted_always_has_the_size(sides, how):
    w, h, width, height = sides
    got = fit_image(Image.new("L", (w, h), 77), width, height, how)
    assert got.size == (width, height) and got.getextrema() == ((77, 77),) * 3


def test_tensor_and_back():
    image = noisy((31, 17))
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 17, 31) and str(tensor.dtype) == "torch.float32"
    assert tensor[0, 1, 5, 7].item() == pytest.approx(image.getpixel((7, 5))[1] / 255)
    assert values(to_image(tensor)).tolist() == values(image).tolist()


@pytest.mark.parametrize(
    ("size", "native", "given", "expected"),
    [
        ((128, 128), (128, 128), (None, None), (128, 128)),
        ((131, 125), (128, 128), (None, None), (128, 128)),
        ((600, 500), (512, 512), (None, None), (600, 504)),
        ((1024, 768), (512, 512), (None, None), (592, 440)),
        ((4000, 3000), (128, 128), (None, None), (144, 112)),
        ((100, 100), (512, 512), (None, None), (512, 512)),
        ((4000, 3000), (512, 512), (256, 320), (256, 320)),
        ((4000, 3000), (512, 512), (256, None), (256, 192)),
        ((4000, 3000), (512, 512), (None, 384), (512, 384)),
        ((20000, 8), (512, 512), (None, None), (2048, 64)),
        ((8, 20000), (512, 512), (None, 2048), (64, 2048)),
        ((3000, 400), (1024, 1024), (None, None), (2048, 272)),
    ],
)
def test_working_size(size, native, given, expected):
    assert working_size(size, native, 8, given) == expected


@given(
    st.integers(8, 20000),
    st.integers(8, 2500),
    st.sampled_from([128, 512, 768, 1024]),
    st.sampled_from([8, 16, 64]),
)
@settings(deadline=None)
def test_working_size_keeps_limits_and_shape(w, h, native, grain):
    width, height = working_size((w, h), (native, native), grain)
    assert width % grain == height % grain == 0
    assert min(width, height) >= 64 and max(width, height) <= 2048
    if max(w, h) / min(w, h) < 2 and grain == 8:
        assert 0.45 * native**2 < width * height < 1.6 * native**2
        assert abs(np.log((width / height) / (w / h))) < 4.1 * (1 / width + 1 / height) + 0.01


def test_picture_is_frozen():
    picture = Picture(noisy())
    assert picture.notes == ()
    with pytest.raises(AttributeError):
        picture.image = None


def test_a_library_for_tiff_writes_nothing_to_stderr(tmp_path):
    data = bytearray(coded(noisy((64, 64)), "TIFF", compression="tiff_adobe_deflate"))
    hurt = []
    for at in range(8, len(data), max(1, len(data) // 60)):
        hurt.append(written(tmp_path, bytes(data[:at] + b"\xa5\x5a" + data[at + 2 :]), f"{at}.tif"))
    code = (
        "import sys\nfrom pipeline.images.open import open_picture, InputError\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        open_picture(path)\n    except InputError:\n        print('refused')\n"
    )
    command = [sys.executable, "-c", code, *map(str, hurt)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "refused" in told.stdout and told.stderr == ""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "F", "I;16"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_strips_make_no_difference(mode, turn, monkeypatch):
    image = noisy((30, 50), {"RGBA": 4, "CMYK": 4}.get(mode, 3))
    if mode in ("F", "I;16"):
        numbers = np.random.default_rng(3).integers(0, 60_000, (50, 30))
        image = Image.fromarray(numbers.astype(np.float32 if mode == "F" else np.uint16))
    elif mode == "CMYK":
        image = Image.merge("CMYK", image.split())
    exif = Image.Exif()
    exif[0x0112] = turn
    image.info["exif"] = exif.tobytes()
    whole = open_picture(image)
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 100)
    strips = open_picture(image)
    assert values(strips.image).tolist() == values(whole.image).tolist()
    assert strips.notes == whole.notes
    upright = values(whole.image) if mode == "RGB" else None
    if upright is not None:
        assert upright.tolist() == values(ImageOps.exif_transpose(image)).tolist()


def test_memory_is_reserved_while_pictures_are_used(tmp_path):
    path = written(tmp_path, coded(noisy((300, 200)), "PNG"))
    with pictures.opened(path, path) as (one, two):
        assert pictures.GATE.nbytes >= 2 * 8 * 300 * 200
        assert one.image.size == two.image.size == (300, 200)
    assert pictures.GATE.nbytes == 0
    both = pictures.opened(path, tmp_path / "absent.png")
    with pytest.raises(InputError, match=r"absent\.png does not exist"), both:
        pass
    assert pictures.GATE.count == 0
