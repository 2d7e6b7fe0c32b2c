"""Coarse previews of latents by a linear map from latents to RGB, without the autoencoder.

The map is fitted by least squares when a model is loaded, so it suits every checkpoint, and a
preview takes almost no time.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from . import vae as vae_module


class Preview:
    """A linear map from the channels of latents to RGB, for quick coarse pictures during sampling.

    weight: (C, 3). bias: (3,).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        self.weight, self.bias = weight, bias

    @classmethod
    def fit(cls, vae: Any, pictures: torch.Tensor | None = None) -> Preview:
        """Fit the linear map from latents to RGB for one autoencoder, by least squares.

        It is fitted to pictures that `vae`, a diffusers AutoencoderKL, encodes and decodes again.
        pictures: (N, 3, H, W) in [0, 1]; by default smooth random pictures of all colours.
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
        # Ridge regression: a channel that hardly varies must not get a huge weight.
        ridge = 1e-3 * len(x) * torch.eye(x.shape[1])
        solution = torch.linalg.solve(x.T @ x + ridge, x.T @ torch.cat(colours))
        return cls(solution[:-1], solution[-1])

    def image(self, latents: torch.Tensor, width: int, height: int) -> Image.Image:
        """Return a coarse RGB picture of scaled latents (1, C, h, w), resized to width x height."""
        flat = latents[0].float().cpu().flatten(1).T @ self.weight + self.bias  # (h w, 3)
        h, w = latents.shape[-2:]
        picture = flat.T.reshape(1, 3, h, w).nan_to_num(0.5).clamp(0, 1)
        return vae_module.to_image(picture).resize((width, height), Image.Resampling.BICUBIC)


def _colour_fields(count: int, side: int) -> torch.Tensor:
    """Return smooth random pictures (count, 3, side, side) in [0, 1], to fit a Preview to.

    They have all kinds of colours and are the same in every call.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 3, 5, 5), generator=generator) * 1.4 - 0.2
    fields = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return fields.clamp(0, 1)
