"""Noise and seeds: each image has its own CPU generator, seeded with seed + index of the image.

The first noise and the noise of all steps are drawn from it, so a picture does not depend on the
device or on its index in a batch. A variation moves only the first noise, towards that of a second
seed, like A1111's "variation seed".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..options import ResolvedOptions

MIN_ROWS = 8  # `slerp` takes each column of latents by itself if they have at least so many rows
PARALLEL = 0.9995  # above this cosine two noises are mixed linearly, as in A1111
ANTIPARALLEL = -0.99  # smaller cosines are raised to this: opposite noises have no unique arc


def generator_for(seed: int, index: int = 0) -> torch.Generator:
    """Return a new CPU generator for image `index` of a batch, seeded with seed + index."""
    return torch.Generator("cpu").manual_seed(seed + index)


def seeds(options: ResolvedOptions, image: int) -> tuple[int, int | None]:
    """Return (seed, variation seed or None) of the image with index `image` in a request.

    As in A1111, the seed counts up from image to image. With a variation (variation_strength above
    0) the seed stays the same and the variation seed counts up.
    """
    if not options.variation_strength:
        return options.seed + image, None
    assert options.variation_seed is not None
    return options.seed, options.variation_seed + image


def first_noise(
    generator: torch.Generator,
    channels: int,
    height: int,
    width: int,
    *,
    variation: tuple[int | None, float] = (None, 0.0),
) -> torch.Tensor:
    """Draw the first noise (1, channels, height, width), unit variance, fp32 on the CPU.

    height, width: of the latents. variation: (variation seed, strength from 0 to 1): the noise is
    interpolated towards that of the variation seed; (None, 0) for none. The same amount of numbers
    is drawn from `generator` in any case, so a variation does not change the noise of the steps.
    """
    shape = 1, channels, height, width
    noise = torch.randn(shape, generator=generator)
    seed, strength = variation
    if seed is None or strength == 0:
        return noise
    return slerp(strength, noise, torch.randn(shape, generator=generator_for(seed)))


def slerp(share: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Interpolate two noises (1, C, h, w) spherically, which keeps their variance.

    share: position between them; exactly `low` at 0 and exactly `high` at 1. Shoemake, SIGGRAPH
    1985. As in A1111, each column of each channel is a vector of its own; latents of fewer than 8
    rows are interpolated as a single vector.
    """
    if share in (0, 1):
        return high if share else low
    over = (-2,) if low.shape[-2] >= MIN_ROWS else (-3, -2, -1)
    lengths = [x.square().sum(over, keepdim=True).sqrt() for x in (low, high)]
    cosine = (low * high).sum(over, keepdim=True) / (lengths[0] * lengths[1])
    angle = cosine.clamp(ANTIPARALLEL, 1).acos()
    linear = cosine > PARALLEL
    weight_low, weight_high = (
        torch.where(linear, part, (part * angle).sin() / angle.sin()) for part in (1 - share, share)
    )
    return weight_low * low + weight_high * high


def alphas_cumprod(scheduler_config: Mapping[str, Any]) -> torch.Tensor:
    """Return alphas_cumprod (T,) fp32 of all trained timesteps for a scheduler configuration.

    It is abar of x_t = sqrt(abar) x0 + sqrt(1 - abar) eps (Ho et al., arXiv 2006.11239).
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(dict(scheduler_config)).alphas_cumprod
