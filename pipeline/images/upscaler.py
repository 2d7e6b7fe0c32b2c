"""Enlarging pixels: Lanczos, and this project's own small network, "glass".

glass doubles a picture: bicubic enlargement plus what a residual network, which works on the small
picture, thinks is missing. Training: training/upscaler/train.py. Pixel shuffle after Shi
et al., arXiv 1609.05158; residual blocks without normalisation after Lim et al. (EDSR),
arXiv 1707.02921.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from ..errors import InputError, short
from ..model_files.json_file import read_json
from ..model_files.safetensors_header import read_header
from .open import MAX_PIXELS

FOLDER = Path(__file__).parents[1] / "models" / "upscaler"
WEIGHTS = "glass.safetensors"
CHANNELS, BLOCKS = 32, 8
TILE = 192  # pixels of a tile's side before enlarging, without what it sees around itself
MAX_FACTOR = 8


def _conv(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1, padding_mode="replicate")


class _Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.relu(self.first(x)))


class Upscaler(nn.Module):
    """Doubles pictures, (B, 3, H, W) in 0..1 to (B, 3, 2H, 2W), not clamped.

    Borders are extended by their own pixels in every layer, so nothing darkens there.
    """

    def __init__(self, channels: int = CHANNELS, blocks: int = BLOCKS):
        super().__init__()
        self.config = {"channels": channels, "blocks": blocks}
        self.head = _conv(3, channels)
        residual = [_Block(channels) for _ in range(blocks)]
        self.blocks = nn.ModuleList(residual)
        self.tail = _conv(channels, 12)
        with torch.no_grad():  # at first a block changes nothing, and the whole is bicubic
            for layer in (*(block.second for block in residual), self.tail):
                layer.weight.mul_(0.1)
                cast(torch.Tensor, layer.bias).zero_()

    @property
    def reach(self) -> int:
        """How far, in pixels of the small picture, the network sees; bicubic sees 2 far."""
        return 2 * len(self.blocks) + 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.head(x - 0.5)
        for block in self.blocks:
            features = block(features)
        missing = F.pixel_shuffle(self.tail(features), 2)
        return F.interpolate(x, scale_factor=2, mode="bicubic") + missing

    @torch.no_grad()
    def doubled(self, image: Image.Image, tile: int = TILE) -> Image.Image:
        """An RGB picture twice as wide and high, made in tiles of `tile` pixels.

        A tile sees all that it would see in the whole picture, so tiles leave no trace.
        """
        weight = self.tail.weight
        pixels = as_pixels(image)  # (3, H, W)
        _, height, width = pixels.shape
        out = torch.empty((3, 2 * height, 2 * width), dtype=torch.uint8)
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                rows, inner_rows = _around(top, tile, height, self.reach)
                columns, inner_columns = _around(left, tile, width, self.reach)
                seen = pixels[None, :, rows, columns].to(weight.device, weight.dtype) / 255
                seen = seen.contiguous(memory_format=torch.channels_last)
                drawn = self(seen)[0, :, inner_rows, inner_columns]
                drawn = drawn.float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
                place = (slice(2 * top, 2 * top + tile * 2), slice(2 * left, 2 * left + tile * 2))
                out[:, place[0], place[1]] = drawn
        return Image.fromarray(out.permute(1, 2, 0).contiguous().numpy(), "RGB")

    def enlarge(self, image: Image.Image, factor: float) -> Image.Image:
        """A picture `factor` times as wide and high, 1 to 8, as RGB.

        Doubled until large enough, then reduced to the exact size with Lanczos. Raises InputError.
        """
        if not 1 <= factor <= MAX_FACTOR:
            raise InputError(f"A picture is enlarged 1 to {MAX_FACTOR} times, not {factor:g}.")
        return self.fit(image, *(round(side * factor) for side in image.size))

    def fit(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """A picture of exactly `width` x `height`, as RGB; the sides may grow differently."""
        image = image.convert("RGB")
        while image.width < width or image.height < height:
            image = self.doubled(image)
        return image.resize((width, height), Image.Resampling.LANCZOS)


def as_pixels(image: Image.Image) -> torch.Tensor:
    """An RGB picture as (3, H, W) uint8."""
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return raw.view(image.height, image.width, 3).permute(2, 0, 1)


def _around(start: int, tile: int, length: int, reach: int) -> tuple[slice, slice]:
    """What a tile sees of `length` pixels, and where it is in what was made of that."""
    end = min(start + tile, length)
    first = max(0, start - reach)
    return slice(first, min(length, end + reach)), slice(2 * (start - first), 2 * (end - first))


@lru_cache(maxsize=2)
def load(device: str | torch.device = "cpu", folder: Path = FOLDER) -> Upscaler:
    """The upscaler of `folder`, ready on `device`. Raises InputError where its files are bad."""
    config = read_json(folder / "config.json")
    sizes: list[Any] = (
        [config.get(k) for k in ("channels", "blocks")] if isinstance(config, dict) else []
    )
    if len(sizes) != 2 or not all(isinstance(n, int) and 1 <= n <= 256 for n in sizes):
        raise InputError(f"{short(folder / 'config.json')} describes no upscaler.")
    path = folder / WEIGHTS
    held = read_header(path).tensors
    model = Upscaler(*sizes)
    wanted = {k: list(v.shape) for k, v in model.state_dict().items()}
    if {k: list(v["shape"]) for k, v in held.items()} != wanted:
        raise InputError(f"{short(path)} does not go with its config.json.")
    model.load_state_dict(load_file(path))
    model.requires_grad_(False)
    model.eval().to(device, torch.float32)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub


@dataclass(frozen=True)
class PixelUpscaler:
    """A way to enlarge pixels. draw(image, width, height, device) -> RGB picture of that size."""

    label: str
    note: str
    draw: Callable[[Image.Image, int, int, str | torch.device], Image.Image]

    def enlarge(
        self, image: Image.Image, width: int, height: int, device: str | torch.device = "cpu"
    ) -> Image.Image:
        """`image` as RGB of exactly `width` x `height`, at most 8 times as wide and as high.

        Raises InputError where that is too much, or no size at all.
        """
        if width < 1 or height < 1:
            raise InputError(f"A picture of {width}x{height} pixels cannot be made.")
        if max(width / image.width, height / image.height) > MAX_FACTOR:
            raise InputError(
                f"{image.width}x{image.height} pixels cannot become {width}x{height}: a picture is"
                f" enlarged at most {MAX_FACTOR} times."
            )
        if width * height > MAX_PIXELS:
            raise InputError(
                f"{width}x{height} are {math.ceil(width * height / 1e6)} million pixels; at most"
                f" {MAX_PIXELS // 10**6} million are made."
            )
        return self.draw(image.convert("RGB"), width, height, device)


UPSCALERS = {
    "glass": PixelUpscaler(
        "Glass",
        "this project's own network: sharp edges, made for drawn pictures",
        lambda image, width, height, device: load(device).fit(image, width, height),
    ),
    "lanczos": PixelUpscaler(
        "Lanczos",
        "Pillow's filter: smooth, adds nothing",
        lambda image, width, height, device: image.resize(
            (width, height), Image.Resampling.LANCZOS
        ),
    ),
}
