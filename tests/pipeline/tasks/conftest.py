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


@pytest.fixture(scope="session")
def rank(emoji):
    """rank(picture, name, background): how many of the 252 things the embedded CLIP's two towers
    take for likelier than `name` in the picture."""
    import torch
    from safetensors.torch import load_file
    from transformers import CLIPVisionModelWithProjection

    from pipeline.images.open import to_tensor

    folder = emoji.path / "clip"
    place = folder / "image_encoder"
    tower = CLIPVisionModelWithProjection.from_pretrained(place, dtype=torch.float32)
    projection = load_file(folder / "text_projection.safetensors")["text_projection.weight"]
    things = [row["en"] for row in emoji.vocabulary]

    @torch.no_grad()
    def embed_texts(texts):
        tokens = emoji.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        pooled = emoji.text_encoder(tokens.input_ids).pooler_output
        return torch.nn.functional.normalize(pooled.float() @ projection.float().T, dim=-1)

    @torch.no_grad()
    def judge(picture, name, background):
        texts = embed_texts([f"a {thing} on a {background} background" for thing in things])
        pixels = to_tensor(picture.resize((128, 128), Image.Resampling.LANCZOS)) * 2 - 1
        seen = torch.nn.functional.normalize(tower(pixels).image_embeds, dim=-1)
        near = (seen @ texts.T)[0]
        return int((near > near[things.index(name)]).sum())

    return judge
