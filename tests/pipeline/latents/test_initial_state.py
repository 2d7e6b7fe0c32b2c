"""Steering in the space of clean latents, and what inpainting UNets see."""

import pytest
import torch

from pipeline import load
from pipeline.latents import initial_state
from pipeline.samplers.base import Answer, Query
from pipeline.samplers.prediction import predicted_clean

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def query(sigma: float) -> Query:
    return Query(torch.randn(1, 4, 8, 8), torch.tensor(500), 3, sigma)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_steered_answer_means_the_clean_latents_that_were_chosen(prediction):
    asked, target = query(1.7), torch.randn(1, 4, 8, 8)
    answer = Answer(*(torch.randn(1, 4, 8, 8) for _ in range(3)))
    seen = []

    def x0_hook(q, clean):
        seen.append((q, clean))
        return target

    got = initial_state.apply_x0_hook(answer, asked, prediction, x0_hook)
    for part in (got.output, got.uncond):
        assert torch.allclose(predicted_clean(asked, part, prediction), target, atol=1e-4)
    assert seen[-1][0] is asked
    expected = predicted_clean(asked, answer.output, prediction)
    assert any(torch.equal(clean, expected) for _, clean in seen)
    assert (
        initial_state.apply_x0_hook(Answer(answer.output), asked, prediction, x0_hook).uncond
        is None
    )


def test_a_unet_without_mask_channels_gets_no_inpaint_conditioning(tiny_model):
    assert (
        initial_state.inpaint_conditioning(load(tiny_model, device="cpu"), None, None, (64, 32))
        is None
    )
