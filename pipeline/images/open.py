"""Open untrusted pictures as upright RGB, and resize them for a model.

Size and format are checked in the file's header before anything is decoded, and only the formats of
KINDS are tried; any failure is an InputError. Pillow and NumPy are imported when the first picture
is opened.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InputError, closest, short

if TYPE_CHECKING:
    import torch
    from PIL import Image

MAX_PIXELS = 50_000_000  # of a picture
MAX_BYTES = 100_000_000  # of its file
SIDES = (8, 20_000)  # shortest and longest side in pixels
MAX_SCANS = 100  # of a progressive JPEG, each of which costs a pass over the picture; 10 are usual
WORKING_SIDES = (64, 2048)  # shortest and longest side that a model draws, as in GenerateOptions
# A picture is drawn at its own size where its area is this share (from, to) of the native area.
WORKING_AREA = (0.5, 1.5)

# From Pillow's name of a format to that of its plugin. A Pillow may be built without AVIF or WebP.
KINDS = {
    "PNG": "Png",
    "JPEG": "Jpeg",
    "WEBP": "WebP",
    "GIF": "Gif",
    "BMP": "Bmp",
    "TIFF": "Tiff",
    "AVIF": "Avif",
}
NAMES = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"

# From EXIF orientation (tag 0x0112) to the PIL.Image.Transpose that turns the picture upright.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True)
class Picture:
    """An opened picture.

    image: upright, of mode RGB, without metadata. notes: sentences for the user about what was
    changed, such as transparency that was replaced by a colour.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def open_picture(value: Any, what: str = "The picture", ground: str = "white") -> Picture:
    """Open a picture and convert it to upright 8-bit RGB.

    value: a path, a PIL image of any mode, or a Picture, which is returned unchanged. what: the
    picture's name at the beginning of error messages. ground: the colour behind transparent pixels.
    Of an animation the first frame is used, the ICC profile is converted to sRGB and the EXIF
    orientation applied. Raises InputError, one sentence, where this fails.
    """
    from PIL import Image

    if isinstance(value, Picture):
        return value
    # Silence Pillow's warnings on damaged tags and large pictures.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if isinstance(value, Image.Image):
        return _to_rgb_picture(value, what, ground)
    path = _path(value, what)
    name = short(Path(path.name or path))
    subject = what if name in what else f"{what} {name}"
    data = _read(path, subject)
    with _explain_errors(subject), _decoder(data, subject) as image:
        return _to_rgb_picture(image, subject, ground)


def fit_image(image: Image.Image, width: int, height: int, how: str = "crop") -> Image.Image:
    """Return `image` as RGB of exactly width x height pixels.

    how: "crop" scales it to cover the size and cuts off what projects, equally on both sides;
    "stretch" changes the aspect ratio; "pad" scales it to fit inside and repeats its edge pixels
    around it. Raises InputError for another value.
    """
    from PIL import Image

    if how not in FITS:
        raise InputError(f"A picture can be fitted by {closest(str(how)[:100], FITS)}.")
    image = image.convert("RGB")
    if image.size == (width, height):
        return image.copy()
    return FITS[how](image, width, height, Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Convert a picture to a tensor (1, 3, H, W), float32, 0 to 1."""
    import numpy as np
    import torch

    pixels = np.array(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def working_size(
    size: tuple[int, int],
    native: tuple[int, int],
    grain: int = 8,
    given: tuple[int | None, int | None] = (None, None),
) -> tuple[int, int]:
    """Return the (width, height) at which a model redraws a picture of `size` (width, height).

    native: the size for which the model was trained. grain: sides are multiples of it. given: the
    width and height that the user requested, each or None. Where one is given, the other follows
    from the picture's aspect ratio. Where none is, the size is the picture's own if its area is 0.5
    to 1.5 of the native one, else it has the picture's aspect ratio and the native area. Computed
    sides lie within 64 to 2048 pixels; requested ones are returned unchanged.
    """
    width, height = size
    wide, high = given
    if wide and high:
        return wide, high
    if wide:
        return wide, _round_to_grain(wide * height / width, grain)
    if high:
        return _round_to_grain(high * width / height, grain), high
    share = width * height / (native[0] * native[1])
    scale = 1.0 if WORKING_AREA[0] <= share <= WORKING_AREA[1] else share**-0.5
    scale = min(scale, WORKING_SIDES[1] / max(size))
    return _round_to_grain(width * scale, grain), _round_to_grain(height * scale, grain)


def _round_to_grain(side: float, grain: int) -> int:
    low, high = WORKING_SIDES
    low, high = -(-low // grain) * grain, high // grain * grain
    return min(max(int(side / grain + 0.5) * grain, low), high)


def _path(value: Any, what: str) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise InputError(f"{what} must be a file or a PIL image, not {short(repr(value))}.")
    text = os.fspath(value)
    if not text.strip():
        raise InputError(f"{what} is missing: give a file.")
    if "\0" in text:
        raise InputError(f"{what}'s path holds a NUL character.")
    return Path(text)


def _read(path: Path, subject: str) -> bytes:
    """Return the bytes of the picture file `path`.

    subject: what error messages begin with ("The picture x.png"). Raises InputError where the file
    does not exist, is no regular file, is empty, cannot be read or has more than 100 MB
    (MAX_BYTES).
    """
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise InputError(f"{subject} is a folder; give a file.")
        if not stat.S_ISREG(kind):  # reading a pipe may block, a device may never end
            raise InputError(f"{subject} is not a file.")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{subject} does not exist.") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or "no file can have that name"
        raise InputError(f"{subject} cannot be read: {reason}.") from None
    if not data:
        raise InputError(f"{subject} is empty.")
    if len(data) > MAX_BYTES:
        raise InputError(f"{subject} has more than {MAX_BYTES // 1_000_000} MB, the largest taken.")
    return data


@contextmanager
def _explain_errors(subject: str) -> Iterator[None]:
    """Turn any exception inside the `with` into an InputError that begins with `subject`.

    Used while pictures are decoded: for damaged files Pillow raises exceptions of nearly every
    class.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{subject} does not fit into memory.") from None
    except Exception:
        raise InputError(f"{subject} is damaged, cut short or of a rare kind.") from None


def _decoder(data: bytes, subject: str) -> Image.Image:
    """Open the picture in the bytes `data` as a PIL image; only its header is read.

    subject: what error messages begin with. Raises InputError for an unknown format, for too many
    pixels, and for a JPEG of too many scans; Pillow's own exceptions for a damaged header.
    """
    from PIL import Image, UnidentifiedImageError

    # Compressed data escapes 0xFF, so this counts markers of scans (and rarely a thumbnail's).
    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > MAX_SCANS:
        raise InputError(f"{subject} is a JPEG of more than {MAX_SCANS} scans; save it anew.")
    kinds = _kinds()
    try:
        return Image.open(io.BytesIO(data), formats=kinds)
    except UnidentifiedImageError:
        raise InputError(f"{subject} is no {NAMES} picture, or a damaged one.") from None
    except Image.DecompressionBombError:  # its message lacks the size, so ask the plugin
        for kind in kinds:
            factory, accept = Image.OPEN[kind]
            if accept is None or accept(data[:16]):
                _check_size(factory(io.BytesIO(data), "").size, subject)
        raise


def _kinds() -> list[str]:
    """Import Pillow's plugins for the picture formats that can be opened; return those it can read.

    The names are Pillow's ("PNG", "JPEG", ...); "WEBP" and "AVIF" are missing in some builds.
    """
    from PIL import features

    built = features.get_supported_modules()
    kinds = [k for k in KINDS if k not in ("WEBP", "AVIF") or k.lower() in built]
    for kind in kinds:
        importlib.import_module(f"PIL.{KINDS[kind]}ImagePlugin")
    return kinds


def _check_size(size: tuple[int, int], subject: str) -> None:
    width, height = size
    low, high = SIDES
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{subject} is {width} x {height} pixels; at most {MAX_PIXELS:,} in all are taken."
        )
    if min(size) < low or max(size) > high:
        raise InputError(
            f"{subject} is {width} x {height} pixels; each side must have {low} to {high:,}."
        )


def _to_rgb_picture(image: Image.Image, subject: str, ground: str) -> Picture:
    """Convert a PIL image of any mode to an upright 8-bit RGB Picture, with notes for the user.

    subject: what the notes and error messages begin with. ground: the colour behind transparent
    pixels. Raises InputError for a damaged picture, or one that is too large or too small.
    """
    from PIL import Image

    _check_size(image.size, subject)
    notes = []
    with _explain_errors(subject):
        image.load()
        if getattr(image, "is_animated", False):
            which = image.tell()  # of a file always 0
            used = f"number {which + 1}" if which else "the first"
            notes.append(f"{subject} holds several frames; {used} is used.")
        turn = UPRIGHT.get(_orientation(image))
        grey = image.mode in ("1", "I", "F", "L", "LA", "La") or image.mode.startswith("I;16")
        opaque, alpha, warned = _split_alpha(image, subject)
        notes += warned
        rgb = _to_srgb(opaque.convert("L") if grey else opaque, image.info.get("icc_profile"))
        if alpha is not None and cast(int, alpha.getextrema()[0]) < 255:
            rgb = Image.composite(rgb, Image.new("RGB", rgb.size, ground), alpha)
            notes.append(f"{subject} is transparent in places; they are {ground} now.")
        rgb = rgb.transpose(Image.Transpose[turn]) if turn else rgb.copy()
        rgb.info = {}
        return Picture(rgb, tuple(notes))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF does not mean damaged pixels
        return 1


def _split_alpha(
    image: Image.Image, subject: str
) -> tuple[Image.Image, Image.Image | None, list[str]]:
    """Split a picture into (its colours, its alpha channel or None, sentences for the user).

    The colours have 8 bits per channel and mode L, RGB, CMYK or LAB, the alpha channel mode L. The
    sentences say what had to be changed and begin with `subject`.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _to_8_bits(image, subject)
    if image.has_transparency_data:
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
        # Pillow reads a 16-bit PNG as 8 bits, but leaves its transparent colour at 16.
        clear = image.info.get("transparency")
        if isinstance(clear, tuple) and max(clear) > 255:
            image = image.copy()
            image.info["transparency"] = tuple(c >> 8 for c in clear)
        image = image.convert(straight).convert("RGBA")
        return image.convert("RGB"), image.getchannel("A"), []
    kept = image.mode in ("L", "RGB", "CMYK", "LAB")
    return (image if kept else image.convert("RGB")), None, []


def _to_8_bits(
    image: Image.Image, subject: str
) -> tuple[Image.Image, Image.Image | None, list[str]]:
    """Convert a grey picture of 16 or 32 bits to (8-bit grey picture, alpha or None, sentences).

    16-bit values are divided by 257. Integers up to 255 are unchanged. Floats are taken as 0 to 1
    where they all lie there, else as 0 to 255. Any other range is scaled so that its least value
    becomes black and its greatest white, which a sentence tells the user; it begins with `subject`.
    Raises InputError for NaN and infinities.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise InputError(f"{subject} holds values that are not finite numbers.")
    low, high = float(values.min()), float(values.max())
    limits = {"I": (255, 65535), "F": (1, 255)}.get(image.mode, (65535,))
    full = next((limit for limit in limits if low >= 0 and high <= limit), None)
    notes = []
    scaled: np.ndarray
    if full is None:
        notes.append(f"{subject} has values from {low:g} to {high:g}; they are black to white now.")
        scaled = (values.astype(np.float64) - low) * (255 / ((high - low) or 1))
    else:
        scaled = values.astype(np.float32) * np.float32(255 / full)
    grey = Image.fromarray((scaled + 0.5).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey, None, notes
    return grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)), notes


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert a picture of mode L, RGB, CMYK or LAB to sRGB, mode RGB.

    profile: the ICC profile in its file, ignored where it is broken or unsuitable; None for sRGB.
    """
    from PIL import ImageCms

    srgb = ImageCms.createProfile("sRGB")

    def convert(image: Image.Image, source: Any) -> Image.Image:
        result = ImageCms.profileToProfile(
            image,
            source,
            srgb,
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.HIGHRESPRECALC,
        )
        assert result is not None  # None is only returned with inPlace
        return result

    if image.mode == "LAB":
        return convert(image, ImageCms.createProfile("LAB"))
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "RGB" and _nearly_equal(convert(_probe(), source), _probe()):
                return image  # one of many variants of sRGB: keep the pixels bit for bit
            return convert(image, source)
        except Exception:
            pass
    return image.convert("RGB")


def _probe() -> Image.Image:
    """Return a picture of 6 x 6 x 6 evenly spaced RGB colours, to test if a profile is sRGB."""
    import numpy as np
    from PIL import Image

    cube = np.stack(np.meshgrid(*[np.arange(0, 256, 51)] * 3), -1)
    return Image.fromarray(cube.reshape(6, 36, 3).astype(np.uint8))


def _nearly_equal(a: Image.Image, b: Image.Image) -> bool:
    from PIL import ImageChops

    bands = cast("tuple[tuple[int, int], ...]", ImageChops.difference(a, b).getextrema())
    return max(high for _, high in bands) <= 2


# Each resizes `image` to width x height with a PIL resampling filter; see fit_image.
def _crop(image: Image.Image, width: int, height: int, filter: int) -> Image.Image:
    scale = min(image.width / width, image.height / height)
    left = (image.width - width * scale) / 2
    top = (image.height - height * scale) / 2
    right, bottom = left + width * scale, top + height * scale
    # Rounding may place the box slightly outside the picture.
    box = (max(0, left), max(0, top), min(right, image.width), min(bottom, image.height))
    return image.resize((width, height), filter, box)


def _stretch(image: Image.Image, width: int, height: int, filter: int) -> Image.Image:
    return image.resize((width, height), filter)


def _pad(image: Image.Image, width: int, height: int, filter: int) -> Image.Image:
    import numpy as np
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    inner = [max(1, round(side * scale)) for side in image.size]
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    around = (top, height - inner[1] - top), (left, width - inner[0] - left), (0, 0)
    pixels = np.asarray(image.resize(inner, filter))
    return Image.fromarray(np.pad(pixels, around, mode="edge"))


# From the values of fit_image's `how` to the functions.
FITS = {"crop": _crop, "stretch": _stretch, "pad": _pad}
