"""Latents to pixels and back, with the autoencoder's own scaling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from PIL import Image

from ..errors import InputError

LARGE = 1536 * 1536  # pixels


def factor(vae) -> int:
    """Pixels a latent stands for, along each side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def is_large(width: int, height: int) -> bool:
    """Whether a picture of these pixels is better encoded and decoded in tiles from the start."""
    return width * height > LARGE


@contextmanager
def tiling(vae) -> Iterator[None]:
    """Within, `vae` works in tiles, which need less memory."""
    before = vae.use_tiling
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.use_tiling = before


@torch.no_grad()
def decode(vae, latents: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """Scaled latents (1, C, h, w) to a picture (1, 3, H, W) in 0..1, float32 on the CPU.

    device: where the autoencoder computes, if that is not where its weights lie.
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
def encode(vae, picture: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """A picture (1, 3, H, W) in 0..1 to scaled latents (the posterior's mean), float32.

    device: where the autoencoder computes, if that is not where its weights lie.
    """
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    pixels = (picture * 2 - 1).to(device or vae.device, vae.dtype)
    latents = vae.encode(pixels).latent_dist.mode().float().cpu()
    return (latents - shift) * vae.config.scaling_factor


def to_image(picture: torch.Tensor) -> Image.Image:
    """(1, 3, H, W) in 0..1 to an RGB picture."""
    pixels = (picture[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(pixels.contiguous().numpy(), "RGB")
