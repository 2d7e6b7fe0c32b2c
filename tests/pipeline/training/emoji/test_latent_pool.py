"""The pool of latents: those of its scenes, scaled, the same for the same seed."""

import pytest
import torch

from pipeline.training.emoji import vae
from pipeline.training.emoji.latent_pool import LatentPool

pytestmark = pytest.mark.quick


def test_pool_holds_scaled_latents_of_its_scenes(composer):
    model = vae.build().eval()
    model.register_to_config(scaling_factor=0.5)
    pool = LatentPool(composer, model, 6, 0.5)
    pool.fill(3)
    with torch.no_grad():
        expected = model.encode(composer.draw(pool.scenes)).latent_dist.mode() * 0.5
    assert torch.allclose(pool.latents.float(), expected, atol=1e-2)
    first = pool.scenes
    pool.fill(3)
    assert pool.scenes == first
