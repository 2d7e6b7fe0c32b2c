"""What the tests of tasks share: loaded models, random pictures, and a check with CLIP."""

import numpy as np
import pytest
from PIL import Image

from pipeline import load


@pytest.fixture(scope="session")
def models(tiny_model):
    """Return the tiny model, loaded on the CPU: untrained, 64x64 pixels."""
    return load(tiny_model, device="cpu")


@pytest.fixture(scope="session")
def emoji():
    """Return the embedded model "emoji", loaded on the CPU."""
    return load("emoji", device="cpu")


@pytest.fixture
def colours():
    """colours(width, height, seed) returns a smooth PIL image of random colours."""

    def draw(width, height, seed=0):
        field = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        return Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)

    return draw


@pytest.fixture(scope="session")
def rank(emoji):
    """rank(picture, name, background) returns how well a picture shows a thing: 0 is best.

    It is the number of the model's 252 things whose caption, "a THING on a BACKGROUND background",
    is closer to the picture than that of `name`, by the embedded model's CLIP.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import CLIPVisionModelWithProjection

    from pipeline.images.open import to_tensor

    folder = emoji.path / "clip"
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(
        folder / "image_encoder", dtype=torch.float32
    )
    projection = load_file(folder / "text_projection.safetensors")["text_projection.weight"]
    things = [row["en"] for row in emoji.vocabulary]

    @torch.no_grad()
    def embed_texts(texts):
        tokens = emoji.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        pooled = emoji.text_encoder(tokens.input_ids).pooler_output
        return torch.nn.functional.normalize(pooled.float() @ projection.float().T, dim=-1)

    @torch.no_grad()
    def count_closer(picture, name, background):
        texts = embed_texts([f"a {thing} on a {background} background" for thing in things])
        pixels = to_tensor(picture.resize((128, 128), Image.Resampling.LANCZOS)) * 2 - 1
        image = torch.nn.functional.normalize(image_encoder(pixels).image_embeds, dim=-1)
        similarity = (image @ texts.T)[0]
        return int((similarity > similarity[things.index(name)]).sum())

    return count_closer
