"""Where pictures may be written; light, so that a bad path is known before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from PIL import Image


def check_writable(path: Path) -> None:
    """InputError in one sentence where a PNG could not be written to `path`."""
    if "\0" in str(path):
        raise InputError("The output path holds a NUL character.")
    if path.suffix.lower() != ".png":
        raise InputError(f"The output path must end in .png, not {path.name!r}.")
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
    """Write a PNG that keeps the picture's parameters text; InputError where that fails."""
    from PIL import PngImagePlugin

    path = Path(path)
    check_writable(path)
    text = PngImagePlugin.PngInfo()
    if "parameters" in picture.info:
        text.add_text("parameters", picture.info["parameters"])
    part = path.with_name(f".{path.name}.part")
    try:
        picture.save(part, "PNG", pnginfo=text)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from None
    return path
