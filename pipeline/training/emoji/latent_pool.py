"""Pools of random scenes whose latents are encoded once and then used for many training steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tqdm import tqdm

from .scenes import SIZE, Composer, Scene, random_scene


class LatentPool:
    """Random training pictures as latents, encoded once and used for many steps of the UNet.

    composer: draws the pictures; vae: encodes them; count: their number; pairs: share (0 to 1) with
    two emoji; side: width and height in pixels (a training step at 64 costs a quarter of one at
    128). Empty until `fill` is called; then `scenes` lists what each picture shows, and `latents`
    is (count, 4, side / 8, side / 8) float16 on the CPU, multiplied by the VAE's scaling factor.
    """

    def __init__(
        self, composer: Composer, vae: AutoencoderKL, count: int, pairs: float, side: int = SIZE
    ):
        self.composer, self.vae, self.count, self.pairs = composer, vae, count, pairs
        self.side = side
        self.objects = len(next(iter(composer.sprites.values())))
        self.scenes: list[Scene] = []
        self.latents = torch.empty(0)

    @torch.no_grad()
    def fill(self, seed: int) -> None:
        """Replace the pool's training pictures by random ones from `seed`, as latents."""
        generator = torch.Generator().manual_seed(seed)
        self.scenes = [random_scene(self.objects, generator, self.pairs) for _ in range(self.count)]
        parts = []
        for i in tqdm(range(0, self.count, 32), desc="latents", leave=False):
            pictures = self.composer.draw(self.scenes[i : i + 32])
            if self.side != SIZE:
                pictures = F.interpolate(pictures, (self.side, self.side), mode="area")
            pictures = pictures.to(self.vae.device, memory_format=torch.channels_last)
            parts.append(self.vae.encode(pictures).latent_dist.mode().half().cpu())
        self.latents = torch.cat(parts) * self.vae.config.scaling_factor


class LatentCache(LatentPool):
    """A pool of training latents that is filled only once, so that several trainings share it."""

    def fill(self, seed: int) -> None:
        """Fill the pool with latents of random training pictures, unless it is filled already.

        seed: of the random pictures.
        """
        if not self.scenes:
            super().fill(seed)

    def subset(self, condition: Callable[[Scene], bool]) -> LatentCache:
        """Return a new pool with the latents of only some pictures, such as those with one emoji.

        condition: true for a Scene (which emoji stand where in a picture) that shall be included.
        """
        out = LatentCache(self.composer, self.vae, 0, self.pairs)
        index = [i for i, s in enumerate(self.scenes) if condition(s)]
        out.scenes, out.latents = [self.scenes[i] for i in index], self.latents[index]
        out.count = len(index)
        return out
