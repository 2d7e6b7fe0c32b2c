"""Previews of latents: a linear map from latents to RGB.

It is fitted by least squares when a model is loaded, so a preview costs almost nothing and works
for every checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from . import vae as vae_module


class Preview:
    """The map from scaled latents to RGB, one colour a latent: weight (C, 3), bias (3,)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        self.weight, self.bias = weight, bias

    @classmethod
    def fit(cls, vae: Any, pictures: torch.Tensor | None = None) -> Preview:
        """Fit the map to what `vae` makes of `pictures` (N, 3, H, W) in 0..1.

        Default: smooth random pictures of all colours.
        """
        if pictures is None:
            pictures = _colour_fields(3, 64)
        rows, colours = [], []
        for picture in pictures.split(1):
            latents = vae_module.encode(vae, picture)
            decoded = vae_module.decode(vae, latents)
            h, w = latents.shape[-2:]
            small = torch.nn.functional.adaptive_avg_pool2d(decoded, (h, w))
            rows.append(latents.flatten(2)[0].T)
            colours.append(small.flatten(2)[0].T)
        x = torch.cat(rows)
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        # A little ridge: a channel that the colours never moved must not get a huge weight.
        ridge = 1e-3 * len(x) * torch.eye(x.shape[1])
        solution = torch.linalg.solve(x.T @ x + ridge, x.T @ torch.cat(colours))
        return cls(solution[:-1], solution[-1])

    def image(self, latents: torch.Tensor, width: int, height: int) -> Image.Image:
        """Return scaled latents (1, C, h, w) as a picture of width x height pixels."""
        flat = latents[0].float().cpu().flatten(1).T @ self.weight + self.bias  # (h w, 3)
        h, w = latents.shape[-2:]
        picture = flat.T.reshape(1, 3, h, w).nan_to_num(0.5).clamp(0, 1)
        return vae_module.to_image(picture).resize((width, height), Image.Resampling.BICUBIC)


def _colour_fields(count: int, side: int) -> torch.Tensor:
    """Return smooth random pictures that between them show every colour, (count, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 3, 5, 5), generator=generator) * 1.4 - 0.2
    fields = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return fields.clamp(0, 1)
