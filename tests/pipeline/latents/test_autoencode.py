"""Pictures to latents and back with a loaded model, also where memory is short."""

import pytest
import torch
from PIL import Image

from pipeline import InputError, load
from pipeline.latents import autoencode, vae


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(tiny_model, device="cpu")


@pytest.fixture
def picture():
    return Image.linear_gradient("L").resize((64, 32)).convert("RGB")


def test_a_picture_and_its_latents(models, picture):
    latents = autoencode.encode_picture(models, picture)
    assert latents.shape == (1, 4, 4, 8)
    assert latents.dtype == torch.float32
    assert torch.isfinite(latents).all()


def test_latents_are_decoded_as_the_engine_does(models):
    result = models.generate(prompt="a red apple", steps=1, seed=2, width=64, height=64)
    decoded = autoencode.decode_picture(models, result.latents[0])
    assert decoded.tobytes() == result.images[0].tobytes()


@pytest.mark.parametrize("name", ["encode", "decode"])
def test_memory_that_runs_out_once_means_tiles(models, picture, name, monkeypatch):
    plain, tiled = getattr(vae, name), []

    def short(network, *given):
        tiled.append(network.use_tiling)
        if not network.use_tiling:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(network, *given)

    monkeypatch.setattr(vae, name, short)
    if name == "encode":
        found = autoencode.encode_picture(models, picture)
    else:
        told = []
        found = autoencode.decode(models, torch.zeros(1, 4, 4, 8), None, lambda: told.append(1))
        assert told == [1]
    assert tiled == [False, True] and torch.isfinite(found).all() and not models.vae.use_tiling


@pytest.mark.parametrize("name", ["encode", "decode"])
def test_memory_that_stays_short_is_a_sentence(models, picture, name, monkeypatch):
    def never(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(vae, name, never)
    with pytest.raises(InputError, match=r"There is not enough memory on cpu .* --low-memory"):
        if name == "encode":
            autoencode.encode_picture(models, picture)
        else:
            autoencode.decode(models, torch.zeros(1, 4, 4, 8))
