"""Randomness: one CPU generator per image, seeded with seed + index.

It feeds the first noise and every step's noise, so a picture is the same on every device and
wherever it stands in a batch. A variation moves the first noise alone towards that of another seed,
as A1111's "variation seed" does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

SHORT = 8  # rows: a column of fewer has no angle worth the name
ALIKE = 0.9995  # cosine above which the way between two noises is taken for straight, as in A1111
OPPOSED = -0.99  # no arc is well told between opposite noises: they count as less opposed


def generator_for(seed: int, index: int = 0) -> torch.Generator:
    """The generator of image `index` of a batch that starts at `seed`."""
    return torch.Generator("cpu").manual_seed(seed + index)


def seeds(options: Any, image: int) -> tuple[int, int | None]:
    """Seed and variation seed of image `image` of resolved options; None where nothing varies.

    As in A1111 the seed counts up from image to image, but where it is varied it stays, and the
    variation seed counts up.
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
    """Unit noise (1, channels, height, width) in latents, float32 on the CPU.

    variation: another seed and how far the noise is its, 0 to 1; None and 0 for none. Whatever it
    is, `generator` has given as many numbers, so every step's noise stays that of its seed.
    """
    shape = 1, channels, height, width
    noise = torch.randn(shape, generator=generator)
    seed, strength = variation
    if seed is None or strength == 0:
        return noise
    return slerp(strength, noise, torch.randn(shape, generator=generator_for(seed)))


def slerp(share: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Between two noises (1, C, h, w) along the arc, which keeps their variance; 0 is `low`, 1 is
    `high`, to the bit.

    Shoemake, SIGGRAPH 1985. A1111 takes the angle of each column of each channel, and so do we for
    its pictures' sake; latents of fewer than 8 rows are turned as a whole.
    """
    if share in (0, 1):
        return high if share else low
    over = (-2,) if low.shape[-2] >= SHORT else (-3, -2, -1)
    lengths = [x.square().sum(over, keepdim=True).sqrt() for x in (low, high)]
    cosine = (low * high).sum(over, keepdim=True) / (lengths[0] * lengths[1])
    angle = cosine.clamp(OPPOSED, 1).acos()
    straight = cosine > ALIKE
    weights = (
        torch.where(straight, part, (part * angle).sin() / angle.sin())
        for part in (1 - share, share)
    )
    return sum(weight * x for weight, x in zip(weights, (low, high), strict=True))


def alphas_cumprod(config: Mapping[str, Any]) -> torch.Tensor:
    """For each timestep of a scheduler's configuration, the share of the picture's power that the
    noise has left, (T,): alpha-bar of Ho et al., arXiv 2006.11239."""
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(dict(config)).alphas_cumprod
