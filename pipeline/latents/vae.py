"""Convert latents to pixels and back with a diffusers AutoencoderKL.

"Scaled" latents are those that the UNet uses: (latents - shift_factor) * scaling_factor, with the
autoencoder's configuration. autoencode.py does the same with a loaded model, and handles running
out of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from ..errors import InputError

LARGE = 1536 * 1536  # pixels; larger pictures are encoded and decoded in tiles


def factor(vae: Any) -> int:
    """Return the autoencoder's downscaling factor: pixels per latent along each side, often 8."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def is_large(width: int, height: int) -> bool:
    """Return whether a picture of width x height pixels is encoded and decoded in tiles."""
    return width * height > LARGE


@contextmanager
def tiling(vae: Any) -> Iterator[None]:
    """Return a context manager in which the autoencoder works in tiles, with less memory."""
    before = vae.use_tiling
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.use_tiling = before


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """Decode scaled latents (1, C, h, w) to pixels (1, 3, H, W) in [0, 1], fp32 on the CPU.

    device: the device that the autoencoder computes on, if its weights are moved there only during
    a call; None means the device of its weights. Raises InputError if the result is not finite.
    """
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    unscaled = latents.to(device or vae.device, vae.dtype) / vae.config.scaling_factor + shift
    picture = vae.decode(unscaled, return_dict=False)[0].float().cpu()
    if not torch.isfinite(picture).all():
        raise InputError(
            "The autoencoder returned values that are not finite; load the model with dtype fp32."
        )
    return (picture / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def encode(vae: Any, pixels: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """Encode pixels (1, 3, H, W) in [0, 1] as scaled latents (1, C, h, w), fp32 on the CPU.

    The latents are the mean of the autoencoder's posterior. device: the device that the autoencoder
    computes on, if its weights are moved there only during a call; None means that of its weights.
    """
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    scaled = (pixels * 2 - 1).to(device or vae.device, vae.dtype)
    latents = vae.encode(scaled).latent_dist.mode().float().cpu()
    return (latents - shift) * vae.config.scaling_factor


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Convert pixels (1, 3, H, W) in [0, 1] on the CPU to an RGB picture."""
    rounded = (pixels[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(rounded.contiguous().numpy(), "RGB")
