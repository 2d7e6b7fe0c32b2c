"""Noise, velocity and clean latents turn into each other without loss."""

import math

import numpy as np
import pytest
import torch

from pipeline.samplers import prediction as p
from pipeline.samplers.base import Query

PREDICTIONS = ("epsilon", "v_prediction", "sample")
SIGMAS = (0.03, 1.0, 14.6)


def query(sigma: float) -> Query:
    return Query(torch.randn(1, 4, 8, 8), torch.tensor(500), 3, sigma)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_output_for_undoes_predicted_clean(prediction, sigma):
    asked, output = query(sigma), torch.randn(1, 4, 8, 8)
    clean = p.predicted_clean(asked, output, prediction)
    assert torch.allclose(p.output_for(asked, clean, prediction), output, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_clean_and_noise_of_an_output_make_the_input_again(prediction, sigma):
    x, output = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    alpha, beta = p.alpha_beta(sigma)
    assert alpha**2 + beta**2 == pytest.approx(1) and beta / alpha == pytest.approx(sigma)
    clean = p.to_clean(x, output, alpha, beta, prediction)
    noise = p.to_noise(x, output, alpha, beta, prediction)
    assert torch.allclose(alpha * clean + beta * noise, x)
    assert torch.allclose(p.add_noise(clean, noise, alpha**2), x)
    if prediction == "v_prediction":
        assert torch.allclose(p.velocity(clean, noise, alpha**2), output)
        assert torch.allclose(p.velocity_to_noise(x, output, sigma), noise)


@pytest.mark.parametrize("prediction", PREDICTIONS[:2])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_both_scales_agree(prediction, sigma):
    x, output = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    x_vp = x / math.sqrt(1 + sigma**2)
    clean = p.denoised(x, x_vp, output, sigma, prediction)
    assert torch.allclose(clean, p.to_clean(x_vp, output, *p.alpha_beta(sigma), prediction))
    back = p.output_in_sigma_scale(x.numpy(), clean.numpy(), sigma, prediction)
    assert np.allclose(back, output.numpy())


def test_add_noise_keeps_the_power_of_the_sum():
    clean, eps = torch.randn(1, 4, 64, 64), torch.randn(1, 4, 64, 64)
    for abar in (1.0, 0.7, 0.1, 0.0):
        mixed = p.add_noise(clean, eps, abar)
        expected = math.sqrt(abar) * clean + math.sqrt(1 - abar) * eps
        assert torch.allclose(mixed, expected, atol=1e-6)
        assert float(mixed.square().mean()) == pytest.approx(1, abs=0.05)


def test_abar_may_be_a_tensor_per_picture():
    clean, eps, abar = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.rand(3, 1, 1, 1)
    assert torch.equal(p.add_noise(clean, eps, abar), abar.sqrt() * clean + (1 - abar).sqrt() * eps)
    assert torch.equal(p.velocity(clean, eps, abar), abar.sqrt() * eps - (1 - abar).sqrt() * clean)
