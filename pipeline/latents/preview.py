"""What is seen on the way: previews of latents, and where each word of the prompt went.

A linear map from latents to RGB is fitted by least squares when a model is loaded, so previews cost
almost nothing and work for every checkpoint. Word maps are what cross attention computed anyway.
"""

from __future__ import annotations

import torch
from PIL import Image

from . import vae as vae_module


class Preview:
    """The map from scaled latents to RGB at one colour a latent: weight (C, 3), bias (3,)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        self.weight, self.bias = weight, bias

    @classmethod
    def fit(cls, vae, pictures: torch.Tensor | None = None) -> Preview:
        """Fit on what `vae` makes of `pictures` (N, 3, H, W) in 0..1; default: colour fields."""
        if pictures is None:
            pictures = _colour_fields(3, 64)
        rows, colours = [], []
        for picture in pictures.split(1):
            latents = vae_module.encode(vae, picture)
            seen = vae_module.decode(vae, latents)
            small = torch.nn.functional.adaptive_avg_pool2d(seen, latents.shape[-2:])
            rows.append(latents.flatten(2)[0].T)
            colours.append(small.flatten(2)[0].T)
        x = torch.cat(rows)
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        # A little ridge: a channel that the colours never moved must not get a huge weight.
        ridge = 1e-3 * len(x) * torch.eye(x.shape[1])
        solution = torch.linalg.solve(x.T @ x + ridge, x.T @ torch.cat(colours))
        return cls(solution[:-1], solution[-1])

    def image(self, latents: torch.Tensor, width: int, height: int) -> Image.Image:
        """Scaled latents (1, C, h, w) as a picture of width x height."""
        flat = latents[0].float().cpu().flatten(1).T @ self.weight + self.bias  # (h w, 3)
        h, w = latents.shape[-2:]
        picture = flat.T.reshape(1, 3, h, w).nan_to_num(0.5).clamp(0, 1)
        return vae_module.to_image(picture).resize((width, height), Image.Resampling.BICUBIC)


def _colour_fields(count: int, side: int) -> torch.Tensor:
    """Smooth random pictures that between them show every colour, (count, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 3, 5, 5), generator=generator) * 1.4 - 0.2
    fields = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return fields.clamp(0, 1)


class WordMaps:
    """Collects the maps of one call of the UNet: the conditional picture's, over all its layers.

    Layers look at different resolutions: `grids` has the average of each. For `words` they are
    brought to one, that of the finest layer of at most 16 rows or columns (16x16 for Stable
    Diffusion at 512x512), and averaged. After Tang et al., "What the DAAM", arXiv 2210.04885.
    """

    last = True  # of the batch it needs no more, see backends.AttentionProcessor

    def __init__(self, height: int, width: int):
        self.ratio = height / width
        self.layers: list[torch.Tensor] = []
        self._read: tuple | None = None  # for which places, and what was read

    def __call__(self, maps: torch.Tensor) -> None:
        """maps (B, Tq, Tk) of one layer; the last of the batch is the conditional picture."""
        self.layers.append(maps[-1])

    def _layers(self, places: list[list[int]]) -> list[torch.Tensor]:
        """Each layer's maps (words, h, w), fp32, in the order in which the layers ran: the sum over
        the keys where a word's tokens stand."""
        if self._read is not None and self._read[0] is places:
            return self._read[1]
        out, stands = [], {}
        for layer in self.layers:
            queries, keys = layer.shape
            rows = round((queries * self.ratio) ** 0.5)
            if keys not in stands:
                stands[keys] = _stand(places, keys).to(layer.device)
            out.append((stands[keys] @ layer.float().T).reshape(-1, rows, queries // rows))
        self._read = places, out
        return out

    def grids(self, places: list[list[int]]) -> tuple[torch.Tensor, ...]:
        """One map a word at each resolution, (words, h, w) fp32 on the CPU, the coarsest first;
        () where there is no cross attention."""
        found: dict[tuple[int, int], list[torch.Tensor]] = {}
        for layer in self._layers(places):
            found.setdefault(tuple(layer.shape[1:]), []).append(layer)
        return tuple(torch.stack(found[size]).mean(0).cpu() for size in sorted(found))

    def words(self, places: list[list[int]]) -> torch.Tensor | None:
        """One map a word over all layers, (words, h, w), fp32 on the CPU; None where there is no
        cross attention."""
        layers = self._layers(places)
        return together(layers).cpu() if layers else None


def _stand(places: list[list[int]], keys: int) -> torch.Tensor:
    """Which keys are a word's, (words, keys) of 0 and 1."""
    rows = [[0.0] * keys for _ in places]
    for row, at in zip(rows, places, strict=True):
        for key in at:
            row[key] = 1.0
    return torch.tensor(rows).reshape(len(places), keys)


def together(layers: list[torch.Tensor]) -> torch.Tensor:
    """Maps (words, h, w) of several layers as their average at one resolution, see WordMaps."""
    sizes = [layer.shape[1:] for layer in layers]
    size = max([s for s in sizes if min(s) <= 16] or sizes, key=lambda s: s[0] * s[1])
    if not len(layers[0]):
        return layers[0].new_zeros((0, *size))
    total = 0
    for layer in layers:
        mode = "area" if layer.shape[1] > size[0] else "bilinear"
        total = total + torch.nn.functional.interpolate(layer[None], size, mode=mode)[0]
    return total / len(layers)
