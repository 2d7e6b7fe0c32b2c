"""Enlarge pictures: by a Lanczos filter, or by "glass", this project's own small network.

glass doubles width and height: bicubic enlargement plus a residual that a convolutional network
predicts from the small picture. Pixel shuffle: Shi et al., arXiv 1609.05158. Residual blocks
without normalisation: EDSR, Lim et al., arXiv 1707.02921. Training: training/upscaler/train.py.
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
CHANNELS, BLOCKS = 32, 8  # width and number of residual blocks of the network
TILE = 192  # side of a tile in pixels of the small picture, without its overlap
MAX_FACTOR = 8  # times that a side is enlarged at most


def _conv(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1, padding_mode="replicate")


class _Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.relu(self.first(x)))


class Upscaler(nn.Module):
    """This project's convolutional network "glass", which doubles the size of pictures.

    forward: (B, 3, H, W), RGB in 0 to 1, becomes (B, 3, 2H, 2W), not clamped to 0 to 1. channels:
    width of the hidden layers. blocks: number of residual blocks. Convolutions pad with replicated
    border pixels, so that borders do not darken.
    """

    def __init__(self, channels: int = CHANNELS, blocks: int = BLOCKS):
        super().__init__()
        self.config = {"channels": channels, "blocks": blocks}
        self.head = _conv(3, channels)
        residual = [_Block(channels) for _ in range(blocks)]
        self.blocks = nn.ModuleList(residual)
        self.tail = _conv(channels, 12)
        with torch.no_grad():  # begin near the identity, so that the output is nearly bicubic
            for layer in (*(block.second for block in residual), self.tail):
                layer.weight.mul_(0.1)
                cast(torch.Tensor, layer.bias).zero_()

    @property
    def reach(self) -> int:
        """Radius of the network's receptive field, in pixels of the picture to enlarge."""
        return 2 * len(self.blocks) + 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.head(x - 0.5)
        for block in self.blocks:
            features = block(features)
        missing = F.pixel_shuffle(self.tail(features), 2)
        return F.interpolate(x, scale_factor=2, mode="bicubic") + missing

    @torch.no_grad()
    def double_size(self, image: Image.Image, tile: int = TILE) -> Image.Image:
        """Return `image` enlarged by the network to twice its width and height, as RGB.

        It is computed in tiles of `tile` x `tile` pixels of `image`, which bounds the memory. Tiles
        overlap by the receptive field, so the result does not depend on their size.
        """
        weight = self.tail.weight
        pixels = as_pixels(image)  # (3, H, W)
        _, height, width = pixels.shape
        out = torch.empty((3, 2 * height, 2 * width), dtype=torch.uint8)
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                rows, inner_rows = _tile_slices(top, tile, height, self.reach)
                columns, inner_columns = _tile_slices(left, tile, width, self.reach)
                small = pixels[None, :, rows, columns].to(weight.device, weight.dtype) / 255
                small = small.contiguous(memory_format=torch.channels_last)
                large = self(small)[0, :, inner_rows, inner_columns]
                large = large.float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
                out_rows = slice(2 * top, 2 * top + tile * 2)
                out[:, out_rows, slice(2 * left, 2 * left + tile * 2)] = large
        return Image.fromarray(out.permute(1, 2, 0).contiguous().numpy(), "RGB")

    def enlarge(self, image: Image.Image, factor: float) -> Image.Image:
        """Return `image` as RGB, `factor` times as wide and high.

        It is doubled until it is large enough, then reduced to the exact size by a Lanczos filter.
        Raises InputError for a factor outside 1 to 8.
        """
        if not 1 <= factor <= MAX_FACTOR:
            raise InputError(f"A picture is enlarged 1 to {MAX_FACTOR} times, not {factor:g}.")
        return self.fit(image, *(round(side * factor) for side in image.size))

    def fit(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Return `image` as RGB of exactly `width` x `height` pixels.

        It is doubled until it is large enough, then reduced by a Lanczos filter; its aspect ratio
        may change.
        """
        image = image.convert("RGB")
        while image.width < width or image.height < height:
            image = self.double_size(image)
        return image.resize((width, height), Image.Resampling.LANCZOS)


def as_pixels(image: Image.Image) -> torch.Tensor:
    """Return an RGB picture as a tensor (3, H, W), uint8, 0 to 255."""
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return raw.view(image.height, image.width, 3).permute(2, 0, 1)


def _tile_slices(start: int, tile: int, length: int, reach: int) -> tuple[slice, slice]:
    """Return slices along one axis for the tile that begins at pixel `start`: (input, inner).

    input: the pixels of the small picture, `length` in all, to give to the upscaling network: the
    tile and `reach` pixels around it. inner: the part of the network's output, which is twice as
    large, that belongs to the tile.
    """
    end = min(start + tile, length)
    first = max(0, start - reach)
    return slice(first, min(length, end + reach)), slice(2 * (start - first), 2 * (end - first))


@lru_cache(maxsize=2)
def load(device: str | torch.device = "cpu", folder: Path = FOLDER) -> Upscaler:
    """Load this project's upscaling network "glass" to `device`, in fp32 and without gradients.

    folder: where its config.json and weights are. Raises InputError where they are missing, damaged
    or do not fit each other. The last two loaded networks are cached.
    """
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
    """A method to enlarge pictures that users can choose; UPSCALERS lists them by name.

    label, note: its name and description for users. draw(image, width, height, device): returns the
    RGB picture `image` resized to exactly width x height.
    """

    label: str
    note: str
    draw: Callable[[Image.Image, int, int, str | torch.device], Image.Image]

    def enlarge(
        self, image: Image.Image, width: int, height: int, device: str | torch.device = "cpu"
    ) -> Image.Image:
        """Return `image` as RGB of exactly `width` x `height` pixels; device: where to compute.

        Raises InputError for a size below 1 pixel, a side enlarged more than 8 times, and more than
        50 million pixels in all.
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
