"""The two towers of CLIP against transformers' own CLIPModel, and the loss against its formula."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from PIL import Image

from pipeline import InputError, load
from pipeline.introspection.clip import Clip, contrastive_loss, has_clip, probabilities
from pipeline.prompt.encode import encode_prompts
from pipeline.prompt.syntax import parse

LINES = ["a red apple", "红 apple on blue", "zebra"]


@pytest.fixture(scope="module")
def both(tiny_model, tmp_path_factory):
    """The tiny model with a fresh image tower, and the same as one CLIPModel."""
    from safetensors.torch import save_file
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPTextModel,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    folder = tmp_path_factory.mktemp("towers") / "tiny"
    shutil.copytree(tiny_model, folder)
    vision = CLIPVisionConfig(
        projection_dim=12,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        text = CLIPTextModel.from_pretrained(folder / "text_encoder")
        image = CLIPVisionModelWithProjection(vision)
        whole = CLIPModel(
            CLIPConfig(
                text_config=text.config.to_dict(),
                vision_config=vision.to_dict(),
                projection_dim=12,
            )
        ).eval()
        torch.nn.init.normal_(whole.text_projection.weight)
    image.save_pretrained(folder / "clip" / "image_encoder")
    rest = {
        "text_projection.weight": whole.text_projection.weight.data.clone(),
        "logit_scale": torch.tensor(3.25),
    }
    save_file(rest, folder / "clip" / "text_projection.safetensors")
    whole.text_model.load_state_dict(text.state_dict())
    whole.vision_model.load_state_dict(image.vision_model.state_dict())
    whole.visual_projection.load_state_dict(image.visual_projection.state_dict())
    whole.logit_scale.data.fill_(3.25)
    return Clip.load(folder), whole, folder


def test_both_towers_say_what_the_whole_model_says(both):
    towers, whole, _ = both
    pixels = torch.rand(2, 3, 32, 32).mul(255).round() / 255
    images = [
        Image.fromarray((p * 255).round().byte().permute(1, 2, 0).numpy(), "RGB") for p in pixels
    ]
    similar = towers.embed_texts(LINES) @ towers.embed_pictures(images).T
    ids = towers._ids(LINES)
    with torch.no_grad():
        expected = whole(input_ids=ids, pixel_values=pixels * 2 - 1)
    assert similar.abs().max() < 1
    torch.testing.assert_close(
        towers.scale * similar, expected.logits_per_text, atol=2e-4, rtol=2e-4
    )
    assert towers.scale == pytest.approx(math.exp(3.25))
    assert towers.width == 12


def test_vectors_are_of_length_one_and_alone_or_together_the_same(both):
    towers = both[0]
    together = towers.embed_texts(LINES)
    assert torch.allclose(together.norm(dim=1), torch.ones(len(LINES)), atol=1e-6)
    for line, vector in zip(LINES, together, strict=True):
        assert torch.allclose(towers.embed_texts([line])[0], vector, atol=1e-5)


def test_the_context_is_what_the_unet_hears(both):
    towers, _, folder = both
    models = load(folder, device="cpu")
    for line in LINES:
        heard, _, _ = encode_prompts(models.text, parse(line, 1), parse("", 1))
        assert torch.allclose(towers.context(line), heard.at(0)[0], atol=1e-5)
    assert towers.context(LINES[0]).shape == (1, 77, 32)
    assert towers.tokens("a red apple")[1:-1] == ["a", "red", "apple"]


def test_a_model_without_an_image_tower_is_refused_in_one_sentence(tiny_model, both):
    assert not has_clip(tiny_model)
    assert has_clip(both[2])
    with pytest.raises(InputError, match="has no image tower"):
        Clip.load(tiny_model)


def test_the_loss_is_its_formula():
    similar, scale = torch.rand(5, 5) * 2 - 1, 7.5
    rows = [[math.exp(scale * s) for s in row] for row in similar.tolist()]
    expected = 0.0
    for i in range(5):
        expected -= math.log(rows[i][i] / sum(rows[i])) / 10
        expected -= math.log(rows[i][i] / sum(row[i] for row in rows)) / 10
    assert contrastive_loss(similar, scale) == pytest.approx(expected, rel=1e-4)
    assert contrastive_loss(torch.zeros(5, 5), scale) == pytest.approx(math.log(5))
    chances = probabilities(similar[:3], scale)
    for row, chance in zip(rows, chances.tolist(), strict=False):
        assert chance == pytest.approx([v / sum(row) for v in row], rel=1e-4)
