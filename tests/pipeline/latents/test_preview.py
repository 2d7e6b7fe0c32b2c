"""Previews: latents as coarse pictures."""

import numpy as np

from pipeline import load
from pipeline.latents import vae
from pipeline.latents.preview import _colour_fields


def test_preview_is_near_the_decoded_picture(tiny_model):
    """Fitted by least squares: closer to the decoded picture than a plain grey is."""
    models = load(str(tiny_model), device="cpu", dtype="fp32")
    picture = _colour_fields(5, 64)[4:]
    latents = vae.encode(models.vae, picture)
    seen = np.asarray(vae.to_image(vae.decode(models.vae, latents)), dtype=float)
    guess = np.asarray(models.preview.image(latents, 64, 64), dtype=float)
    assert np.abs(guess - seen).mean() < np.abs(seen - seen.mean((0, 1))).mean()
