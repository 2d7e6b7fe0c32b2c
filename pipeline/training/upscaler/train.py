"""The pixel upscaler: 128 to 256 pixels, learned from emoji that are 256 pixels large themselves.

Truth is a scene composed at 256x256 of pictures that were never enlarged. What the network sees is
that scene reduced to 128x128 by an antialiased bicubic filter (Pillow's, as in data.py): mostly as
it is, some of it through the embedded autoencoder, whose soft pictures are what will be enlarged,
some with JPEG's traces or noise. The loss is L1 on crops, so that sharp edges pay and outliers do
not rule.

Every tenth emoji is held out. What counts as one is all that begins with the same character, so
that a fireman and a judge, both men to Unicode, are on the same side.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

from ...images.upscaler import Upscaler, as_pixels
from ..emoji import scenes as data
from ..emoji.scenes import PAIR, SINGLE, Scene, load_sprites, random_scene
from ..loop import Trainer

SIDE = 2 * data.SIZE
EVERY = 10  # one of so many emoji is held out
CROP = 48  # pixels of the small picture
PER_SCENE = 2  # crops that are learned from, each the liveliest
TRIES = 3  # of so many
FREE = 0.4  # of the pictures: objects of any size, anywhere, on a gradient
SOFT, DAMAGED = 0.15, 0.1  # of the pictures: autoencoded; with noise or as JPEG
SLOWER = 1000  # steps after which the rate has fallen to 0.7 of what it was, and so on


def split(folder: Path) -> tuple[list[str], list[str]]:
    """All emoji of the package without skin tones: those to learn from, those held out."""
    package = data._Package(folder, data.PACKAGES["emoji"])
    keys = sorted(data._file_key(p) for p in package.members if p.endswith(".webp"))
    package.close()
    codes = [k.split("-") for k in keys]
    odd = {f"1f3f{n}" for n in "bcdef"}  # and three flags whose names are written otherwise
    codes = [c for c in codes if not odd & set(c) and "_" not in "".join(c)]
    held = set(sorted({c[0] for c in codes})[::EVERY])
    parts: tuple[list[str], list[str]] = ([], [])
    for code in codes:
        parts[code[0] in held].append("".join(chr(int(c, 16)) for c in code))
    return parts


def sprites(folder: Path, emojis: list[str]) -> torch.Tensor:
    """Premultiplied RGBA as the package holds them, (N, 4, 256, 256) uint8."""
    return load_sprites(folder, emojis, SIDE).mul_(255).round_().to(torch.uint8)


def _sized(sprite: torch.Tensor, side: int) -> torch.Tensor:
    """(4, 256, 256) uint8 to (4, side, side) in 0..1, never larger than it is."""
    whole = sprite[None].float() / 255
    if side == SIDE:
        return whole[0]
    small = F.interpolate(whole, (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)
    small[:3] = torch.minimum(small[:3], small[3])
    return small


def _paste(canvas: torch.Tensor, sprite: torch.Tensor, x: int, y: int) -> None:
    """Lay a sprite (4, s, s) over a canvas (3, H, W); what leaves the canvas is cut off."""
    side, (_, height, width) = sprite.shape[-1], canvas.shape
    left, top = max(0, -x), max(0, -y)
    right, bottom = min(side, width - x), min(side, height - y)
    part = sprite[:, top:bottom, left:right]
    window = canvas[:, y + top : y + bottom, x + left : x + right]
    window.mul_(1 - part[3:]).add_(part[:3])


class Scenes:
    """Draws truth, (3, 256, 256) in 0..1, rounded to 8 bits."""

    def __init__(self, pictures: torch.Tensor):
        self.pictures = pictures

    def composed(self, scene: Scene) -> torch.Tensor:
        """A scene as the embedded model knows them, at twice their size."""
        shade = torch.tensor(scene.shade, dtype=torch.float32) / 255
        canvas = shade[:, None, None].expand(3, SIDE, SIDE).clone()
        side = 2 * (SINGLE if len(scene.things) == 1 else PAIR)
        for thing, (x, y) in zip(scene.things, scene.places, strict=True):
            _paste(canvas, _sized(self.pictures[thing], side), 2 * x, 2 * y)
        return canvas.mul_(255).round_().div_(255)

    def known(self, generator: torch.Generator) -> torch.Tensor:
        return self.composed(random_scene(len(self.pictures), generator))

    def free(self, generator: torch.Generator) -> torch.Tensor:
        """One to three objects of any size, at any place, on a gradient of two colours."""
        ends = torch.rand(2, 3, 1, 1, generator=generator)
        ramp = torch.linspace(0, 1, SIDE)
        canvas = torch.lerp(*ends, ramp.expand(SIDE, SIDE).clone())
        for _ in range(_below(3, generator) + 1):
            side = SIDE if _below(2, generator) else 96 + _below(SIDE - 96, generator)
            x, y = (_below(SIDE, generator) - side // 2 for _ in range(2))
            thing = self.pictures[_below(len(self.pictures), generator)]
            _paste(canvas, _sized(thing, side), x, y)
        return canvas.mul_(255).round_().div_(255)

    def __call__(self, generator: torch.Generator) -> torch.Tensor:
        anywhere = float(torch.rand((), generator=generator)) < FREE
        return self.free(generator) if anywhere else self.known(generator)


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def to_image(picture: torch.Tensor) -> Image.Image:
    """(3, H, W) in 0..1 to RGB."""
    pixels = picture.mul(255).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy(), "RGB")


def to_tensor(image: Image.Image) -> torch.Tensor:
    return as_pixels(image).float() / 255


def reduced(picture: torch.Tensor) -> torch.Tensor:
    """Half the size, by Pillow's antialiased bicubic filter, 8 bits."""
    image = to_image(picture)
    return to_tensor(image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC))


@torch.no_grad()
def softened(small: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
    """What the autoencoder keeps of (3, 128, 128), 8 bits."""
    drawn = vae.decode(vae.encode(small[None] * 2 - 1).latent_dist.mode()).sample[0]
    return (drawn / 2 + 0.5).clamp(0, 1).mul(255).round().div(255)


def damaged(small: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """With noise of up to 4 of 255, or as a JPEG of quality 70 to 95."""
    if _below(2, generator):
        strength = float(torch.rand((), generator=generator)) * 4 / 255
        noise = torch.randn(small.shape, generator=generator) * strength
        return (small + noise).clamp(0, 1).mul(255).round().div(255)
    held = io.BytesIO()
    to_image(small).save(held, "JPEG", quality=70 + _below(26, generator))
    return to_tensor(Image.open(held, formats=("JPEG",)))


class Crops:
    """What the network learns from. `crops(batch, generator)` -> small (B, 3, 48, 48) and truth
    (B, 3, 96, 96) in 0..1."""

    def __init__(self, scenes: Scenes, vae: AutoencoderKL):
        self.scenes, self.vae = scenes, vae

    def __call__(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = []
        while len(pairs) < batch:
            pairs += self._of_one_scene(generator)
        small, truth = (torch.stack(p) for p in zip(*pairs[:batch], strict=True))
        return small, truth

    def _of_one_scene(self, generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
        truth = self.scenes(generator)
        small = reduced(truth)
        kind = float(torch.rand((), generator=generator))
        if kind < SOFT:
            small = softened(small, self.vae)
        elif kind < SOFT + DAMAGED:
            small = damaged(small, generator)
        return [_crop(small, truth, generator) for _ in range(PER_SCENE)]


def _crop(
    small: torch.Tensor, truth: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A piece of both, turned and with its colours exchanged at random."""
    places = [[_below(data.SIZE - CROP + 1, generator) for _ in range(2)] for _ in range(TRIES)]
    y, x = max(places, key=lambda p: float(_cut(truth, *p).var((1, 2)).sum()))
    way, colours = _below(8, generator), torch.randperm(3, generator=generator)
    pieces = small[:, y : y + CROP, x : x + CROP], _cut(truth, y, x)
    small, truth = (_turned(p, way)[colours] for p in pieces)
    return small, truth


def _cut(truth: torch.Tensor, y: int, x: int) -> torch.Tensor:
    return truth[:, 2 * y : 2 * (y + CROP), 2 * x : 2 * (x + CROP)]


def _turned(picture: torch.Tensor, way: int) -> torch.Tensor:
    """One of the eight ways to turn and mirror a square."""
    picture = torch.rot90(picture, way % 4, (1, 2))
    return picture.flip(2) if way >= 4 else picture


def trainer(
    model: Upscaler,
    crops: Crops,
    folder: Path,
    *,
    batch: int = 8,
    rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    **loop,
) -> Trainer:
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99))

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        for group in optimizer.param_groups:  # which the loop has just set
            group["lr"] *= (1 + number / SLOWER) ** -0.5
        small, truth = (
            x.to(device, memory_format=torch.channels_last) for x in crops(batch, generator)
        )
        drawn = model(small)
        return {"loss": F.l1_loss(drawn, truth), "mse": F.mse_loss(drawn, truth)}

    config = {"batch": batch, "seed": seed, **model.config}
    return Trainer(
        folder, model, optimizer, step, config=config, batch=batch, ema_decay=0.998, **loop
    )
