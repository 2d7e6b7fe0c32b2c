"""Steering in the space of clean latents, and what inpainting UNets see."""

import pytest
import torch
from PIL import Image

from pipeline import load
from pipeline.denoising.denoiser import output_for, predicted_clean
from pipeline.latents import initial_state
from pipeline.samplers.base import Answer, Query

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def query(sigma: float) -> Query:
    return Query(torch.randn(1, 4, 8, 8), torch.tensor(500), 3, sigma)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_an_output_and_the_clean_latents_it_means_are_one(prediction, sigma):
    asked, output = query(sigma), torch.randn(1, 4, 8, 8)
    clean = predicted_clean(asked, output, prediction)
    assert torch.allclose(output_for(asked, clean, prediction), output, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_steered_answer_means_the_clean_latents_that_were_chosen(prediction):
    asked, target = query(1.7), torch.randn(1, 4, 8, 8)
    answer = Answer(*(torch.randn(1, 4, 8, 8) for _ in range(3)))
    seen = []

    def steer(q, clean):
        seen.append((q, clean))
        return target

    got = initial_state.steered(answer, asked, prediction, steer)
    for part in (got.output, got.uncond):
        assert torch.allclose(predicted_clean(asked, part, prediction), target, atol=1e-4)
    assert seen[-1][0] is asked
    expected = predicted_clean(asked, answer.output, prediction)
    assert any(torch.equal(clean, expected) for _, clean in seen)
    assert initial_state.steered(Answer(answer.output), asked, prediction, steer).uncond is None


def test_a_picture_and_its_latents(tiny_model):
    models = load(tiny_model, device="cpu")
    picture = Image.linear_gradient("L").resize((64, 32)).convert("RGB")
    latents = initial_state.encode_picture(models, picture)
    assert latents.shape == (1, 4, 4, 8)
    assert latents.dtype == torch.float32
    assert torch.isfinite(latents).all()
    assert initial_state.beside(models, None, None, (64, 32)) is None


def test_latents_are_decoded_as_the_engine_does(tiny_model):
    models = load(tiny_model, device="cpu")
    result = models.generate(prompt="a red apple", steps=1, seed=2, width=64, height=64)
    decoded = initial_state.decode_latents(models, result.latents[0])
    assert decoded.tobytes() == result.images[0].tobytes()
