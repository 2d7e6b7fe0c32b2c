"""Open untrusted pictures as upright RGB, and resize them for a model.

Size and format are checked in the file's header before anything is decoded, and only the formats of
KINDS are tried; any failure is an InputError. Pillow and NumPy are imported when the first picture
is opened.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InputError, closest, short
from .gate import GATE
from .structure import TooComplex, check_directories, extra_bytes

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

MAX_PIXELS = 50_000_000  # of a picture
MAX_BYTES = 100_000_000  # of its file
SIDES = (8, 20_000)  # shortest and longest side in pixels
MAX_MEMORY = 450_000_000  # bytes that opening a picture takes at its peak
INSPECTIONS = threading.BoundedSemaphore(2)  # files whose structure is being checked
STRIP_PIXELS = 1_000_000  # pixels that are converted to RGB at a time
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


GREYS = ("1", "L", "LA", "La")  # modes of grey pictures of at most 8 bits


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
    if isinstance(value, Image.Image):
        _silence_decoders()
        return _to_rgb_picture(value, what, ground)
    with GATE.reserve(_memory_of_file(value, what)):
        return decode(*_read_file(value, what), ground)


@contextmanager
def opened(*paths: Any, what: str = "The picture") -> Iterator[list[Picture]]:
    """Open pictures as `open_picture` does, for use inside the `with` alone.

    The memory that opening them takes stays reserved until then, so that whoever is outside the
    queue that lends the device, at any number at once, does not hold more pictures than the server
    has memory for. what: a picture's name at the beginning of error messages. Raises InputError,
    one sentence, for a file that cannot be opened.
    """
    with GATE.reserve(sum(_memory_of_file(path, what) for path in paths)):
        yield [decode(*_read_file(path, what)) for path in paths]


def _memory_of_file(value: Any, what: str) -> int:
    """Return `memory_needed` of the picture file whose path is `value`.

    The file is read for it, by few at a time, and read again once its turn has come: those that
    wait for memory hold none.
    """
    with INSPECTIONS:
        return memory_needed(*_read_file(value, what))


def memory_needed(data: bytes, subject: str = "The picture") -> int:
    """Return the bytes of memory that opening the picture file `data` takes at its peak.

    subject: the picture's name at the beginning of error messages. Raises InputError for a file
    that is not opened: of an unknown format, too large or too complex.
    """
    _silence_decoders()
    size, needed = _inspect(data, subject)
    if needed > MAX_MEMORY:
        raise InputError(
            f"{subject} is {size[0]} x {size[1]} pixels; a file of its kind and size takes"
            f" {needed // 10**6:,} MB to open, and {MAX_MEMORY // 10**6} are allowed: make it"
            " smaller."
        )
    return needed


def decode(data: bytes, subject: str = "The picture", ground: str = "white") -> Picture:
    """Convert the bytes of a picture file to an upright 8-bit RGB Picture, as `open_picture` does.

    subject: the picture's name at the beginning of error messages. Waits while other pictures that
    are being opened take too much memory. Raises InputError, one sentence, where this fails.
    """
    with GATE.reserve(memory_needed(data, subject)), _explain_errors(subject):
        stream = io.BytesIO(data)
        del data
        with _decoder(stream, subject) as image:
            return _to_rgb_picture(image, subject, ground, stream)


def _silence_decoders() -> None:
    """Silence Pillow's warnings on damaged tags and large pictures, and libtiff's messages."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()


@cache
def _silence_libtiff() -> None:
    """Make libtiff write nothing to stderr, where Pillow's copy of it can be reached.

    Its symbols are found through Pillow's own library, which is linked to it. Where it is part of
    that library, as on Windows, it cannot be reached.
    """
    from PIL import Image

    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(Image.core.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            function = getattr(library, name)
            function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            function(None)


def _inspect(data: bytes, subject: str) -> tuple[tuple[int, int], int]:
    """Return ((width, height), bytes of memory that opening takes) of the picture file `data`.

    The file's structure is checked before Pillow sees any of it. subject: what error messages begin
    with. Raises InputError for an unknown format and for a file that is too large or too complex.
    """
    try:
        extra_bytes(data, (1, 1))
        with _explain_errors(subject), _decoder(io.BytesIO(data), subject) as image:
            _check_size(image.size, subject)
            size = image.size
        extra, pixels = extra_bytes(data, size), size[0] * size[1]
    except TooComplex as error:
        raise InputError(f"{subject} has {error}; save it anew.") from None
    # Pillow's picture has at most four bytes a pixel, and so has the RGB picture made from it.
    return size, max(len(data) + 4 * pixels + extra, 8 * pixels)


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


def _read_file(value: Any, what: str) -> tuple[bytes, str]:
    """Return (the bytes of the file whose path is `value`, the picture's name in messages).

    what: that name without the file's. Raises InputError where the file cannot be read.
    """
    path = _path(value, what)
    name = short(Path(path.name or path))
    subject = what if name in what else f"{what} {name}"
    return _read(path, subject), subject


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


def _decoder(stream: io.BytesIO, subject: str) -> Image.Image:
    """Open the picture file in `stream` as a PIL image; only its header is read.

    subject: what error messages begin with. Raises InputError for an unknown format and for too
    many pixels; Pillow's own exceptions for a damaged header.
    """
    from PIL import Image, UnidentifiedImageError

    kinds = _kinds()
    try:
        return Image.open(stream, formats=kinds)
    except UnidentifiedImageError:
        raise InputError(f"{subject} is no {NAMES} picture, or a damaged one.") from None
    except Image.DecompressionBombError:  # its message lacks the size, so ask the plugin
        for kind in kinds:
            factory, accept = Image.OPEN[kind]
            stream.seek(0)
            if accept is None or accept(stream.read(16)):
                stream.seek(0)
                _check_size(factory(stream, "").size, subject)
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


def _to_rgb_picture(
    image: Image.Image, subject: str, ground: str, stream: io.BytesIO | None = None
) -> Picture:
    """Convert a PIL image of any mode to an upright 8-bit RGB Picture, with notes for the user.

    It is converted in strips, so that beside `image` and the result little memory is taken.
    subject: what the notes and error messages begin with. ground: the colour behind transparent
    pixels. stream: the file that `image` is read from, which is closed after that; None for a
    picture in memory. Raises InputError for a damaged picture, or one that is too large or too
    small.
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
        elif stream is not None:
            stream.close()
        turn = UPRIGHT.get(_orientation(image))
        scale, warned = _scale_to_8_bits(image, subject)
        notes += warned
        convert = _srgb_conversion(image)
        width, height = image.size
        sideways = turn in ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
        result = Image.new("RGB", (height, width) if sideways else (width, height))
        rows, transparent = max(1, STRIP_PIXELS // width), False
        for top in range(0, height, rows):
            strip = image.crop((0, top, width, min(top + rows, height)))
            opaque, alpha = _split_alpha(strip, scale)
            rgb = convert(opaque)
            if alpha is not None and cast(int, alpha.getextrema()[0]) < 255:
                rgb = Image.composite(rgb, Image.new("RGB", rgb.size, ground), alpha)
                transparent = True
            if turn:
                rgb = rgb.transpose(Image.Transpose[turn])
            result.paste(rgb, _strip_corner(turn, top, strip.height, height))
        if transparent:
            notes.append(f"{subject} is transparent in places; they are {ground} now.")
        return Picture(result, tuple(notes))


def _strip_corner(turn: str | None, top: int, rows: int, height: int) -> tuple[int, int]:
    """Return where in the upright picture the left upper corner of a turned strip lies, (x, y).

    turn: the PIL.Image.Transpose that turns the picture upright, None for none. The strip is that
    of `rows` rows from `top` on of a picture of `height` rows.
    """
    bottom = height - top - rows
    if turn in ("ROTATE_180", "FLIP_TOP_BOTTOM"):
        return 0, bottom
    if turn in ("TRANSPOSE", "ROTATE_90"):
        return top, 0
    if turn in ("ROTATE_270", "TRANSVERSE"):
        return bottom, 0
    return 0, top


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded picture, 1 where it has none or a damaged one."""
    exif = image.info.get("exif")
    try:
        if "Raw profile type exif" in image.info and exif is None:
            exif = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
        if isinstance(exif, bytes):
            check_directories(exif)
        return image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF does not mean damaged pixels
        return 1


def _split_alpha(
    image: Image.Image, scale: Callable[[np.ndarray], np.ndarray] | None
) -> tuple[Image.Image, Image.Image | None]:
    """Split a picture into (its colours, its alpha channel or None).

    The colours have 8 bits per channel and mode L, RGB, CMYK or LAB, the alpha channel mode L.
    scale: for a grey picture of 16 or 32 bits, the function from its values to 8 bits.
    """
    import numpy as np
    from PIL import Image

    if scale is not None:
        numbers = np.asarray(image)
        grey, clear = Image.fromarray(scale(numbers)), image.info.get("transparency")
        if not isinstance(clear, int):
            return grey, None
        return grey, Image.fromarray(np.where(numbers == clear, 0, 255).astype(np.uint8))
    to_grey = image.mode in GREYS
    if image.has_transparency_data:
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
        # Pillow reads a 16-bit PNG as 8 bits, but leaves its transparent colour at 16.
        clear = image.info.get("transparency")
        if isinstance(clear, tuple) and max(clear) > 255:
            image = image.copy()
            image.info["transparency"] = tuple(c >> 8 for c in clear)
        image = image.convert(straight).convert("RGBA")
        return image.convert("L" if to_grey else "RGB"), image.getchannel("A")
    if to_grey:
        return image.convert("L"), None
    kept = image.mode in ("RGB", "CMYK", "LAB")
    return (image if kept else image.convert("RGB")), None


def _scale_to_8_bits(
    image: Image.Image, subject: str
) -> tuple[Callable[[np.ndarray], np.ndarray] | None, list[str]]:
    """Return (the function from a grey picture's values to 8 bits, sentences for the user).

    None for a picture that has 8 bits or fewer. 16-bit values are divided by 257. Integers up to
    255 are unchanged. Floats are taken as 0 to 1 where they all lie there, else as 0 to 255. Any
    other range is scaled so that its least value becomes black and its greatest white, which a
    sentence tells the user; it begins with `subject`. Raises InputError for NaN and infinities.
    """
    import numpy as np

    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return None, []
    low, high = np.inf, -np.inf
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        numbers = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        if not np.isfinite(numbers).all():
            raise InputError(f"{subject} holds values that are not finite numbers.")
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
    limits = {"I": (255, 65535), "F": (1, 255)}.get(image.mode, (65535,))
    full = next((limit for limit in limits if low >= 0 and high <= limit), None)

    def scale(numbers: np.ndarray) -> np.ndarray:
        if full is not None:
            scaled = numbers.astype(np.float32) * np.float32(255 / full)
        else:
            scaled = (numbers.astype(np.float64) - low) * (255 / ((high - low) or 1))
        return (scaled + 0.5).astype(np.uint8)

    if full is not None:
        return scale, []
    return scale, [f"{subject} has values from {low:g} to {high:g}; they are black to white now."]


def _srgb_conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return the function that converts the colours of `image` to sRGB, mode RGB.

    It takes pictures of mode L, RGB, CMYK or LAB. An ICC profile of `image` that is broken or
    unsuitable is ignored, and one of the many variants of sRGB changes no pixel.
    """
    from PIL import ImageCms

    mode = "LAB" if image.mode == "LAB" else _colour_mode(image)
    srgb = ImageCms.createProfile("sRGB")

    def plain(part: Image.Image) -> Image.Image:
        return part.convert("RGB")

    def conversion(source: Any) -> Callable[[Image.Image], Image.Image]:
        transform = ImageCms.buildTransform(
            source,
            srgb,
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.HIGHRESPRECALC,
        )
        return lambda part: cast("Image.Image", ImageCms.applyTransform(part, transform))

    if mode == "LAB":
        return conversion(ImageCms.createProfile("LAB"))
    profile = image.info.get("icc_profile")
    if profile:
        try:
            convert = conversion(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
            convert(image.crop((0, 0, 1, 1)).convert(mode))
            same = mode == "RGB" and _nearly_equal(convert(_probe()), _probe())
            return plain if same else convert
        except Exception:
            pass
    return plain


def _colour_mode(image: Image.Image) -> str:
    """Return the mode, L, RGB or CMYK, in which the colours of a picture are converted to sRGB."""
    if image.mode in GREYS or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return "L"
    return "CMYK" if image.mode == "CMYK" and not image.has_transparency_data else "RGB"


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
