"""Fixtures of the LoRA training's tests: a tiny model, three pictures, and a short training."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open

from pipeline import load
from pipeline.training import loop
from pipeline.training.lora import data as lora_data
from pipeline.training.lora import train as lora


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """runs/ and models/ of a test are its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return load(tiny_model, device="cpu")


def _dots(count: int = 3) -> list[Image.Image]:
    pictures = []
    for i in range(count):
        picture = Image.new("RGB", (70 + 10 * i, 80), (40 * i, 200, 90))
        ImageDraw.Draw(picture).ellipse((10 + i, 10, 50, 60 + i), fill=(200, 10, 150))
        pictures.append(picture)
    return pictures


@pytest.fixture
def dots():
    """A function that returns `count` (3) pictures of different sizes."""
    return _dots


@pytest.fixture
def make_options():
    """A function that returns LoraOptions of a short training; keyword arguments replace them."""

    def make(**more) -> lora.LoraOptions:
        few = {"steps": 4, "batch": 2, "rank": 3, "rate": 1e-3, "layers": "all"}
        few |= {"images": _dots(), "name": "zog", "prompt": "a red apple"}
        return lora.LoraOptions(**few | more)

    return make


@pytest.fixture
def run():
    """A function that trains to the end and returns the list of events."""

    def run_training(models, options) -> list:
        return list(lora.train(models, options))

    return run_training


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict


@pytest.fixture
def tensors():
    """A function that returns the tensors of a safetensors file."""
    return _tensors


@pytest.fixture
def newest():
    """A function that returns the tensors of a folder's newest checkpoint."""
    return lambda folder: _tensors(loop.newest_checkpoint(Path(folder)))


def _unet_output(models, fitted=None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 4, 8, 8, generator=generator)
    context, pooled = lora_data.encode_captions(models, ["a blue apple"])["a blue apple"]
    more = lora_data.added_cond_kwargs(pooled, 64, 64, models.device, torch.float32)
    if fitted is not None:  # after the look-up of the words, which takes LoRAs off
        models.adapters.install(((fitted, 1.0, 1.0),))
    with torch.no_grad():
        return models.unet(x, 500, encoder_hidden_states=context, **more).sample


@pytest.fixture
def answer():
    """A function that returns the UNet's output for fixed random input, without LoRAs."""
    return lambda models: _unet_output(models)


@pytest.fixture
def answer_with_lora():
    """A function that installs a fitted LoRA and returns the UNet's output for the same input."""
    return _unet_output
