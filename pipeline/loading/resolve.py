"""Find the folder or file of a model by the name that a user gives.

The name is that of a model of this package or in ./models, a path to a folder in diffusers' format
or to a single .safetensors file, or a Hugging Face Hub id "owner/name".
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InputError, closest, short
from ..model_files import library
from ..model_files.safetensors_header import PICKLES


def find_model(name: str | os.PathLike) -> Path | None:
    """Return the folder or file of the model `name`; None for a Hub id, which is to be downloaded.

    name: of a model of this package or in ./models, a path to a diffusers folder or a .safetensors
    file, or a Hub id "owner/name". Raises InputError where there is no such model, and for a `name`
    of another form.
    """
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"A model is a name, a folder or a hub id, not {short(repr(name))}.")
    if len(text) > 1000 or not text.isprintable():
        raise InputError(f"{short(text)} is no name of a model: it is too long or not printable.")
    if re.match(r"[\\/]{2}", text):
        raise InputError(
            f"{short(text)} is a network path; copy the model to a local folder first."
        )
    path = Path(os.path.expanduser(text))
    if not re.search(r"[\\/]", text):
        found = library.find_checkpoint(text)
        if found is not None:
            return found
    try:
        folder = path.is_dir()
    except OSError as error:
        raise InputError(f"{short(text)} cannot be read: {error.strerror}.") from None
    if folder:
        return path
    if path.suffix.lower() in (*PICKLES, ".safetensors"):
        return _single_file(path)
    if path.is_file():
        raise InputError(
            f"{short(text)} is a file of another kind; a model is a .safetensors file or a folder"
            " in diffusers' format."
        )
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text, re.ASCII):
        return None
    if re.search(r"[\\/]", text) or text.startswith((".", "~")):
        raise InputError(f"There is no model folder {short(text)}.")
    names = list(library.find_entries("checkpoint"))
    there = f"there is {closest(text, names)}" if names else "none is here"
    raise InputError(
        f"There is no model {short(repr(text))}; {there}, or give a folder, a .safetensors file or"
        " a hub id owner/name."
    )


def _single_file(path: Path) -> Path:
    """Return `path` where it is an existing .safetensors file; raise InputError where it is not."""
    if not path.is_file():
        raise InputError(f"There is no file {short(path)}.")
    if path.suffix.lower() != ".safetensors":
        raise InputError(
            f"{short(path)} is a pickle, and pickled weights are not loaded, because they can run"
            " any code; convert it to safetensors."
        )
    return path


def find_vae(name: str | os.PathLike) -> Path:
    """Return the file or folder of an autoencoder: `name` is that of one in ./models, or a path.

    Raises InputError where there is none.
    """
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else ""
    entry = library.find_entries("vae").get(text)
    path = entry.path if entry else Path(os.path.expanduser(text))
    if not text or "\0" in text or len(text) > 1000 or not os.path.exists(path):
        there = closest(text[:100], library.find_entries("vae")) or "none in the folder models"
        raise InputError(f"There is no autoencoder {short(repr(name))}; there is {there}.")
    return path


def model_name(path: Path) -> str:
    """Return the name of the model at `path`: the folder's name, or the file's without ending."""
    path = Path(os.path.abspath(path))
    return path.name if path.is_dir() else path.stem
