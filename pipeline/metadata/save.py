"""Write pictures with their metadata to PNG, JPEG and WebP files.

Pillow is imported only to write, so that a bad path is refused before anything heavy is loaded.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..disk import explain_failure, reason, write_file
from ..errors import InputError
from .containers import encode_exif

if TYPE_CHECKING:
    from PIL import Image

KEYWORD = "glassbox"  # of the PNG text chunk with the receipt
JPEG_EXIF = 65_533  # bytes of EXIF in a JPEG at most: the length of a segment has 16 bits


def check_writable(path: Path) -> None:
    """Raise InputError where a picture could not be written to `path`, before it is drawn.

    That is: its ending is not .png, .jpg, .jpeg or .webp, it is a folder, or its parent folder is
    missing or not writable.
    """
    if "\0" in str(path):
        raise InputError("The output path holds a NUL character.")
    if path.suffix.lower() not in WRITERS:
        *first, last = WRITERS
        endings = f"{', '.join(first)} or {last}"
        raise InputError(f"The output path must end in {endings}, not {path.name!r}.")
    if path.is_dir():
        raise InputError(f"Cannot write {path}: it is a folder.")
    folder = path.parent
    try:
        if not folder.is_dir():
            raise InputError(f"Cannot write {path}: the folder {folder} does not exist.")
    except OSError as error:
        raise InputError(f"Cannot write to that path: {error.strerror}.") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"Cannot write {path}: the folder {folder} is not writable.")


def save_picture(picture: Image.Image, path: str | Path) -> Path:
    """Write a picture with its metadata to a PNG, JPEG or WebP file; return the path.

    The parameters text, `info["parameters"]`, is stored as A1111 does: in PNG as a text chunk
    `parameters` (tEXt, or iTXt where it is not Latin-1), in JPEG and WebP as EXIF UserComment in
    big-endian UTF-16. A PNG also gets the receipt, `info["receipt"]` (JSON by which it can be drawn
    again and verified), as a compressed chunk `glassbox`. A failure leaves no partial file. Raises
    InputError where the file cannot be written, and for a text too long for a JPEG, about 32,000
    characters.
    """
    path = Path(path)
    check_writable(path)
    kind, flags = WRITERS[path.suffix.lower()]
    flags = flags | (_png if kind == "PNG" else _exif)(picture.info)
    if kind == "JPEG" and len(flags.get("exif", b"")) > JPEG_EXIF:
        raise InputError(
            f"Cannot write {path}: prompt and settings take {len(flags['exif']):,} bytes in a JPEG "
            f"(two a character, emoji four), which holds {JPEG_EXIF:,}; .png and .webp hold more."
        )
    try:
        # Into memory first: where the disk is full, Pillow writes a part of a JPEG and is silent.
        data = BytesIO()
        with explain_failure(path):
            picture.save(data, kind, **flags)
        return write_file(path, lambda part: part.write_bytes(data.getbuffer()))
    except ValueError as error:  # of Pillow: the picture does not fit the format
        if isinstance(error, InputError):
            raise
        raise InputError(f"Cannot write {path}: {reason(error)}.") from None


def _png(info: dict) -> dict:
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    if info.get("parameters"):
        chunks.add_text("parameters", info["parameters"])
    if info.get("receipt"):
        chunks.add_text(KEYWORD, info["receipt"], zip=True)
    return {"pnginfo": chunks}


def _exif(info: dict) -> dict:
    return {"exif": encode_exif(info["parameters"])} if info.get("parameters") else {}


# From a file's ending to Pillow's name of the format and the arguments of Image.save. JPEG's usual
# chroma subsampling (4:2:0) would smear the edges of flat colours, so it is off.
WRITERS: dict[str, tuple[str, dict]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
}
