"""Load the pictures of emoji as RGBA tensors.

Source: Microsoft's Fluent 3D emoji (npm package `@lobehub/fluent-emoji-3d`, MIT).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .packages import PACKAGES, NpmPackage, strip_variation_selector

SKIN_TONES = frozenset(("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"))


def file_key(path: str) -> str:
    """Return an emoji's Unicode code points, read from the file name of its picture.

    "assets/2764-fe0f.webp", a path in the npm package of pictures, gives "2764": hexadecimal,
    joined by "-", without U+FE0F.
    """
    codes = path.removeprefix("assets/").removesuffix(".webp").split("-")
    return "-".join(c for c in codes if c != "fe0f")


def list_keys(folder: Path) -> list[str]:
    """Return the Unicode code points of all emoji that have a picture, sorted.

    Each is a string such as "2764", hexadecimal, joined by "-", without U+FE0F. folder: of the npm
    package with the pictures.
    """
    package = NpmPackage(folder, PACKAGES["emoji"])
    keys = sorted(file_key(p) for p in package.members if p.endswith(".webp"))
    package.close()
    return keys


def load_sprites(folder: Path, emojis: list[str] | None, side: int) -> torch.Tensor:
    """Load the pictures of `emojis` as premultiplied RGBA, (N, 4, side, side) float32 in [0, 1].

    folder: of the npm package with the pictures; emojis: their characters, None for all in the
    package except those with a skin tone, which would be half of them; side: width and height in
    pixels. Raises KeyError for an emoji without a picture.
    """
    package = NpmPackage(folder, PACKAGES["emoji"])
    by_key = {file_key(p): p for p in sorted(package.members) if p.endswith(".webp")}
    if emojis is None:
        paths = [p for k, p in by_key.items() if not SKIN_TONES & set(k.split("-"))]
    else:
        keys = ("-".join(f"{ord(c):x}" for c in strip_variation_selector(e)) for e in emojis)
        paths = [by_key[key] for key in keys]
    out = np.empty((len(paths), 4, side, side), dtype=np.float32)
    for i, path in enumerate(paths):
        picture = Image.open(io.BytesIO(package.read(path)), formats=("WEBP",)).convert("RGBA")
        rgba = np.asarray(picture, dtype=np.float32) / 255
        rgba[..., :3] *= rgba[..., 3:]
        full = torch.from_numpy(rgba).permute(2, 0, 1)[None]
        out[i] = F.interpolate(full, (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)
        out[i, :3] = np.minimum(out[i, :3], out[i, 3])
    package.close()
    return torch.from_numpy(out)
