"""Models and pictures for the tests of tasks."""

import numpy as np
import pytest
from PIL import Image

from pipeline import load


@pytest.fixture(scope="session")
def models(tiny_model):
    """The tiny model: untrained, 64x64 pixels."""
    return load(tiny_model, device="cpu")


@pytest.fixture(scope="session")
def emoji():
    """The embedded model."""
    return load("emoji", device="cpu")


@pytest.fixture
def colours():
    """colours(width, height, seed): a smooth picture of random colours."""

    def draw(width, height, seed=0):
        field = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        return Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)

    return draw
