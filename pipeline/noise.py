"""Randomness: one CPU generator per image, seeded with seed + index.

It feeds the first noise and every step's noise, so a picture is the same on every device and
wherever it stands in a batch.
"""

from __future__ import annotations

import torch


def generator_for(seed: int, index: int = 0) -> torch.Generator:
    """The generator of image `index` of a batch that starts at `seed`."""
    return torch.Generator("cpu").manual_seed(seed + index)


def first_noise(generator: torch.Generator, channels: int, height: int, width: int) -> torch.Tensor:
    """Unit noise (1, channels, height, width) in latents, float32 on the CPU."""
    return torch.randn((1, channels, height, width), generator=generator)
