"""Low memory, and memory that runs out: retry with less, else a sentence with a size that fits."""

from __future__ import annotations

import pytest
import torch

from pipeline import oom
from pipeline.errors import InputError
from pipeline.loading.device import offload
from pipeline.loading.load import load
from pipeline.options import GenerateOptions

ASK = {"prompt": "a red apple", "seed": 3, "steps": 2, "size": (64, 64)}
OPTIONS = GenerateOptions(**ASK)


@pytest.fixture
def models(tiny_model):
    return load(tiny_model, device="cpu", dtype="fp32")


def limit(monkeypatch, module, most):
    """`module` runs out of memory where its input has more numbers than `most`."""
    forward, calls = module.forward, []

    def tight(x, *arguments, **options):
        calls.append(tuple(x.shape))
        if x.numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(x, *arguments, **options)

    monkeypatch.setattr(module, "forward", tight)
    return calls


@pytest.mark.slow
def test_guidance_is_split_where_memory_runs_out(models, monkeypatch):
    whole = models.generate(**ASK)
    first = next(models.stream(OPTIONS, words=True))
    calls = limit(monkeypatch, models.unet, 4 * 8 * 8)
    result = models.generate(**ASK)
    assert calls == [(2, 4, 8, 8)] + [(1, 4, 8, 8)] * 4
    assert (result.latents[0] - whole.latents[0]).abs().max() < 1e-3
    (warning,) = result.warnings
    assert "two calls" in warning and not whole.warnings
    step = next(models.stream(OPTIONS, words=True))
    assert len(step.words) == 3 and (step.maps - first.maps).abs().max() < 1e-5


@pytest.mark.slow
def test_a_picture_that_cannot_be_made_names_a_size_that_can(models, monkeypatch):
    limit(monkeypatch, models.unet, 4 * 24 * 24)
    with pytest.raises(InputError) as caught:
        models.generate(**(ASK | {"size": (256, 384)}))
    assert str(caught.value) == (
        "A picture of 256x384 does not fit into the free memory of cpu; 128x192 fits."
    )
    assert models.generate(**(ASK | {"size": (128, 192)})).images
    limit(monkeypatch, models.unet, 0)
    with pytest.raises(InputError, match="start with --low-memory"):
        models.generate(**ASK)


@pytest.mark.slow
def test_decoding_falls_back_to_tiles(models, monkeypatch):
    models.vae.tile_latent_min_size, models.vae.tile_sample_min_size = 8, 64
    ask = ASK | {"size": (128, 128)}
    whole = models.generate(**ask)
    limit(monkeypatch, models.vae.decoder, 4 * 8 * 8)
    result = models.generate(**ask)
    assert torch.equal(result.latents[0], whole.latents[0])
    assert "decoded in tiles" in result.warnings[0] and not models.vae.use_tiling
    assert result.images[0].size == (128, 128)
    limit(monkeypatch, models.vae.decoder, 0)
    with pytest.raises(InputError, match="to decode latents of 16x16"):
        models.generate(**ask)


def test_low_memory_draws_the_same(tiny_model, models, monkeypatch):
    low = load(tiny_model, device="cpu", dtype="fp32", low_memory=True)
    assert low.vae.use_tiling and low.vae.use_slicing
    whole, result = models.generate(**ASK), low.generate(**ASK)
    assert torch.equal(result.latents[0], whole.latents[0])


def test_offloaded_layers_draw_the_same(models):
    """As on a GPU with --low-memory: weights lie elsewhere and visit layer by layer."""
    whole = models.generate(**ASK)
    parts = {"unet": models.unet, "vae": models.vae, "text_encoder": models.text_encoder}
    offload(parts, models.device)
    assert next(models.unet.parameters()).device.type == "meta"
    result = models.generate(**ASK)
    assert torch.equal(result.latents[0], whole.latents[0])
    assert list(result.images[0].getdata()) == list(whole.images[0].getdata())


@pytest.mark.slow
def test_a_processor_has_words_of_its_own_for_it(models, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(models.unet, "forward", full)
    with pytest.raises(InputError, match="A picture of 64x64 does not fit"):
        models.generate(**ASK)


def test_what_fails_otherwise_is_not_memory():
    with pytest.raises(ValueError):
        oom.retry_on_oom(lambda: int("x"), lambda: 1)
    with pytest.raises(torch.OutOfMemoryError):
        oom.retry_on_oom(*[lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("x"))] * 2)
