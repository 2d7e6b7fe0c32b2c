"""Training data of the pixel upscaler: pairs of a 48x48 input crop and its 96x96 target crop.

The target is cut from a scene composed at 256x256 from emoji of 256x256 pixels, which are never
enlarged. The input is that scene reduced to 128x128 by Pillow's antialiased bicubic filter. Some
inputs also pass through the embedded model's autoencoder, because the upscaler will be used on its
slightly blurred output, and some get noise or JPEG artifacts.

Every tenth emoji is held out for the evaluation. Emoji that begin with the same code point are held
out together, because they look alike: the man as fireman and the man as judge, for instance.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

from ...images.open import decode
from ...images.upscaler import as_pixels
from ..emoji.scenes import PAIR_SIDE, SINGLE_SIDE, SIZE, Scene, random_scene
from ..emoji.sprites import SKIN_TONES, list_keys, load_sprites

SIDE = 2 * SIZE
HOLD_OUT_EVERY = 10  # one emoji in so many is held out
CROP = 48  # side of a crop of the small picture, in pixels
CROPS_PER_SCENE = 2
TRIES = 3  # positions per crop, of which the one with the largest variance is taken
FREE = 0.4  # share of scenes with objects of any size, anywhere, on a gradient
AUTOENCODED, DEGRADED = 0.15, 0.1  # shares of inputs through the VAE, with noise or JPEG


def split_emojis(folder: Path) -> tuple[list[str], list[str]]:
    """Divide all emoji into (those to train the upscaler on, those held out to measure it).

    Both are lists of characters, without emoji with a skin tone. folder: of the npm package with
    the emoji's pictures.
    """
    codes = [k.split("-") for k in list_keys(folder)]
    # Three flags have names of another form, with "_".
    codes = [c for c in codes if not SKIN_TONES & set(c) and "_" not in "".join(c)]
    held_out = set(sorted({c[0] for c in codes})[::HOLD_OUT_EVERY])
    parts: tuple[list[str], list[str]] = ([], [])
    for code in codes:
        parts[code[0] in held_out].append("".join(chr(int(c, 16)) for c in code))
    return parts


def load_sprites_8bit(folder: Path, emojis: list[str]) -> torch.Tensor:
    """Load pictures of `emojis` at full size as premultiplied RGBA, (N, 4, 256, 256) uint8.

    folder: of the npm package with the pictures; emojis: their characters.
    """
    return load_sprites(folder, emojis, SIDE).mul_(255).round_().to(torch.uint8)


def scale_down(sprite: torch.Tensor, side: int) -> torch.Tensor:
    """Scale an emoji's picture to any size, as floats, to paste it into a training picture.

    sprite: premultiplied RGBA (4, 256, 256) uint8; side: width and height of the result in pixels,
    at most 256. The result is premultiplied RGBA (4, side, side) in [0, 1].
    """
    full = sprite[None].float() / 255
    if side == SIDE:
        return full[0]
    small = F.interpolate(full, (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)
    small[:3] = torch.minimum(small[:3], small[3])
    return small


def paste(canvas: torch.Tensor, sprite: torch.Tensor, x: int, y: int) -> None:
    """Draw an emoji's picture on a canvas, in place, to compose a training picture.

    canvas: RGB (3, H, W) in [0, 1]; sprite: the emoji as premultiplied RGBA (4, s, s) in [0, 1]; x,
    y: pixel of the canvas for the sprite's top left corner, may be negative. Parts outside the
    canvas are cut off.
    """
    side, (_, height, width) = sprite.shape[-1], canvas.shape
    left, top = max(0, -x), max(0, -y)
    right, bottom = min(side, width - x), min(side, height - y)
    part = sprite[:, top:bottom, left:right]
    window = canvas[:, y + top : y + bottom, x + left : x + right]
    window.mul_(1 - part[3:]).add_(part[:3])


class SceneRenderer:
    """Draws the upscaler's training pictures: emoji on a background, (3, 256, 256) in [0, 1].

    Values are rounded to multiples of 1 / 255. sprites: the emoji's pictures as premultiplied RGBA,
    (N, 4, 256, 256) uint8.
    """

    def __init__(self, sprites: torch.Tensor):
        self.sprites = sprites

    def draw(self, scene: Scene) -> torch.Tensor:
        """Draw the picture that `scene` describes, at 256x256: twice the emoji model's size."""
        rgb = torch.tensor(scene.rgb, dtype=torch.float32) / 255
        canvas = rgb[:, None, None].expand(3, SIDE, SIDE).clone()
        side = 2 * (SINGLE_SIDE if len(scene.objects) == 1 else PAIR_SIDE)
        for index, (x, y) in zip(scene.objects, scene.corners, strict=True):
            paste(canvas, scale_down(self.sprites[index], side), 2 * x, 2 * y)
        return canvas.mul_(255).round_().div_(255)

    def draw_known(self, generator: torch.Generator) -> torch.Tensor:
        """Return a random picture (3, 256, 256) of the kind that the emoji model draws.

        It shows one or two emoji on a plain background, at twice that model's size.
        """
        return self.draw(random_scene(len(self.sprites), generator))

    def draw_free(self, generator: torch.Generator) -> torch.Tensor:
        """Return a random picture: one to three emoji of any size, anywhere, on a gradient."""
        first, last = torch.rand(2, 3, 1, 1, generator=generator)
        ramp = torch.linspace(0, 1, SIDE)
        canvas = torch.lerp(first, last, ramp.expand(SIDE, SIDE).clone())
        for _ in range(random_below(3, generator) + 1):
            large = random_below(2, generator)
            side = SIDE if large else 96 + random_below(SIDE - 96, generator)
            x, y = (random_below(SIDE, generator) - side // 2 for _ in range(2))
            sprite = self.sprites[random_below(len(self.sprites), generator)]
            paste(canvas, scale_down(sprite, side), x, y)
        return canvas.mul_(255).round_().div_(255)

    def __call__(self, generator: torch.Generator) -> torch.Tensor:
        """Return a random training picture for the upscaler, (3, 256, 256) in [0, 1].

        With probability FREE it shows one to three emoji of any size, anywhere, on a gradient.
        Otherwise it is like the emoji model's pictures: one or two emoji on a plain background.
        """
        free = float(torch.rand((), generator=generator)) < FREE
        return self.draw_free(generator) if free else self.draw_known(generator)


def random_below(count: int, generator: torch.Generator) -> int:
    """Return a random integer in 0..count - 1."""
    return int(torch.randint(count, (), generator=generator))


def to_image(picture: torch.Tensor) -> Image.Image:
    """Convert a tensor (3, H, W) in [0, 1] to an RGB picture."""
    pixels = picture.mul(255).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy(), "RGB")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Convert an RGB picture to a float tensor (3, H, W) in [0, 1]."""
    return as_pixels(image).float() / 255


def downscale(picture: torch.Tensor) -> torch.Tensor:
    """Return `picture` (3, H, W) in [0, 1] at half its size, as the upscaler's input.

    It is reduced by Pillow's antialiased bicubic filter and rounded to multiples of 1 / 255.
    """
    image = to_image(picture)
    return to_tensor(image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC))


@torch.no_grad()
def autoencode(small: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
    """Return the VAE's slightly blurred reconstruction of `small`, as an input of the upscaler.

    Both are (3, 128, 128) in [0, 1]; the result is rounded to multiples of 1 / 255.
    """
    decoded = vae.decode(vae.encode(small[None] * 2 - 1).latent_dist.mode()).sample[0]
    return (decoded / 2 + 0.5).clamp(0, 1).mul(255).round().div(255)


def degrade(small: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return `small` (3, H, W) in [0, 1] with noise or JPEG artifacts, to train a robust upscaler.

    One of the two is chosen at random. The noise is Gaussian with a standard deviation of up to 4 /
    255; the JPEG quality is 70 to 95.
    """
    if random_below(2, generator):
        strength = float(torch.rand((), generator=generator)) * 4 / 255
        noise = torch.randn(small.shape, generator=generator) * strength
        return (small + noise).clamp(0, 1).mul(255).round().div(255)
    file = io.BytesIO()
    to_image(small).save(file, "JPEG", quality=70 + random_below(26, generator))
    return to_tensor(decode(file.getvalue()).image)


class CropSource:
    """Source of training batches for the upscaler, which doubles the size of pictures.

    Call it to get a batch of small crops and of the same regions at twice the size.

    renderer: draws the large pictures, which are then reduced. vae: encodes and decodes a share
    AUTOENCODED of the reduced ones, so that the upscaler also learns from slightly blurred ones;
    may be None only if AUTOENCODED is 0.
    """

    def __init__(self, renderer: SceneRenderer, vae: AutoencoderKL | None):
        self.renderer, self.vae = renderer, vae

    def __call__(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a training batch of the upscaler: (inputs (B, 3, 48, 48), targets (B, 3, 96, 96)).

        All are in [0, 1]. A target shows the same region as its input in the larger original
        picture. batch: their number B.
        """
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        while len(pairs) < batch:
            pairs += self._crop_scene(generator)
        small = torch.stack([s for s, _ in pairs[:batch]])
        return small, torch.stack([t for _, t in pairs[:batch]])

    def _crop_scene(self, generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
        truth = self.renderer(generator)
        small = downscale(truth)
        chance = float(torch.rand((), generator=generator))
        if chance < AUTOENCODED:
            small = autoencode(small, self.vae)
        elif chance < AUTOENCODED + DEGRADED:
            small = degrade(small, generator)
        return [crop_pair(small, truth, generator) for _ in range(CROPS_PER_SCENE)]


def crop_pair(
    small: torch.Tensor, truth: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a training pair for the upscaler, of the same region: return (input, target).

    The input (3, 48, 48) is cut from `small` (3, 128, 128), the target (3, 96, 96) from `truth` (3,
    256, 256). Both are rotated, mirrored and their colour channels permuted in the same random way.
    Of TRIES random positions the one with the largest variance is taken.
    """
    corners = [[random_below(SIZE - CROP + 1, generator) for _ in range(2)] for _ in range(TRIES)]
    y, x = max(corners, key=lambda c: float(_crop_original(truth, *c).var((1, 2)).sum()))
    symmetry, channels = random_below(8, generator), torch.randperm(3, generator=generator)
    small_crop = _transform(small[:, y : y + CROP, x : x + CROP], symmetry)[channels]
    return small_crop, _transform(_crop_original(truth, y, x), symmetry)[channels]


def _crop_original(truth: torch.Tensor, y: int, x: int) -> torch.Tensor:
    return truth[:, 2 * y : 2 * (y + CROP), 2 * x : 2 * (x + CROP)]


def _transform(picture: torch.Tensor, symmetry: int) -> torch.Tensor:
    """Rotate and mirror a training crop (3, s, s) in one of 8 ways, `symmetry` 0..7."""
    picture = torch.rot90(picture, symmetry % 4, (1, 2))
    return picture.flip(2) if symmetry >= 4 else picture
