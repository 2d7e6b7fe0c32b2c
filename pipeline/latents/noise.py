"""Noise and seeds: one CPU generator per image, seeded with seed + index.

It draws the first noise and every step's noise, so a picture is the same on every device and at
every place in a batch. A variation moves the first noise alone towards that of another seed, as
A1111's "variation seed" does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

MIN_ROWS = 8  # of a column of latents whose angle is taken by itself
PARALLEL = 0.9995  # cosine from which two noises are mixed linearly, as in A1111
ANTIPARALLEL = -0.99  # the least cosine counted: between opposite noises no arc is defined


def generator_for(seed: int, index: int = 0) -> torch.Generator:
    """Return the generator of image `index` of a batch that starts at `seed`."""
    return torch.Generator("cpu").manual_seed(seed + index)


def seeds(options: Any, image: int) -> tuple[int, int | None]:
    """Return seed and variation seed of one image of resolved options, None without variation.

    As in A1111 the seed counts up from image to image; with a variation it stays and the variation
    seed counts up.
    """
    if not options.variation_strength:
        return options.seed + image, None
    return options.seed, options.variation_seed + image


def first_noise(
    generator: torch.Generator,
    channels: int,
    height: int,
    width: int,
    *,
    variation: tuple[int | None, float] = (None, 0.0),
) -> torch.Tensor:
    """Draw unit noise (1, channels, height, width), height and width in latents, float32 on CPU.

    variation: another seed, and the share of the noise that is its, 0 to 1; (None, 0) for none.
    `generator` always gives as many numbers, so the steps' noise is that of its seed.
    """
    shape = 1, channels, height, width
    noise = torch.randn(shape, generator=generator)
    seed, strength = variation
    if seed is None or strength == 0:
        return noise
    return slerp(strength, noise, torch.randn(shape, generator=generator_for(seed)))


def slerp(share: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Interpolate two noises (1, C, h, w) along the arc, which keeps their variance.

    share 0 is `low` and 1 is `high`, to the bit. Shoemake, SIGGRAPH 1985. Like A1111, it takes the
    angle of each column of each channel; latents of fewer than 8 rows are taken as one vector.
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
    """Return abar of each timestep of a scheduler's configuration, (T,): the share of the signal's
    power in x_t (Ho et al., arXiv 2006.11239)."""
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(dict(scheduler_config)).alphas_cumprod
