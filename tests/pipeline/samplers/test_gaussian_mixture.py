"""Mixtures whose perfect model is known: every formula against a slow one, on random data."""

import math

import numpy as np
import pytest
import torch

from pipeline.samplers import Answer, Query, make_sampler
from pipeline.samplers.gaussian_mixture import (
    SCHEDULER_CONFIG,
    GaussianMixture,
    GuidedMixture,
    distance,
    even_noise,
    expected_distance,
    points,
    run_sampler,
    to_points,
)


@pytest.fixture
def chance():
    return np.random.default_rng()


def some(chance, dimensions=1):
    weights = chance.uniform(0.2, 1, 3)
    weights = weights / weights.sum()
    means = chance.normal(size=(3, dimensions))
    # Noise at the highest level has no trace of a mean, so data with one are not quite reached.
    return GaussianMixture(weights, means - weights @ means, chance.uniform(0.2, 0.6, 3))


def plain(mixture, x):
    """The density of the data at numbers x, as it is written in books."""
    log_densities = zip(mixture.weights, mixture.means[:, 0], mixture.deviations, strict=True)
    return sum(
        w * np.exp(-((x - m) ** 2) / (2 * d**2)) / (d * math.sqrt(2 * math.pi))
        for w, m, d in log_densities
    )


@pytest.mark.parametrize("sigma", [0.05, 0.7, 9.0])
def test_denoiser_is_the_integral_over_all_data(chance, sigma):
    mixture = some(chance)
    data, step = np.linspace(-8, 8, 40001, retstep=True)
    for x in chance.normal(scale=math.hypot(1, sigma), size=5):
        likely = plain(mixture, data) * np.exp(-((x - data) ** 2) / (2 * sigma**2))
        noisy = likely.sum() * step / (sigma * math.sqrt(2 * math.pi))
        mean = (likely * data).sum() / likely.sum()
        at = np.array([[x]])
        assert mixture.denoised(at, sigma)[0, 0] == pytest.approx(mean, abs=1e-6)
        assert mixture.density(at, sigma)[0] == pytest.approx(noisy, rel=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_score_is_the_slope_of_the_log_density(chance, dimensions):
    mixture, sigma, small = some(chance, dimensions), chance.uniform(0.1, 2), 1e-5
    x = chance.normal(size=(10, dimensions)) * 1.5
    slopes = [
        np.log(mixture.density(x + step, sigma) / mixture.density(x - step, sigma)) / (2 * small)
        for step in np.eye(dimensions) * small
    ]
    score = mixture.score(x, sigma)
    np.testing.assert_allclose(score, np.stack(slopes, 1), atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(mixture.denoised(x, sigma), x + sigma**2 * score, atol=1e-9)


def test_share_below_is_the_integral_of_the_density(chance):
    mixture = some(chance)
    grid, step = np.linspace(-9, 9, 90001, retstep=True)
    mine = mixture.cdf(grid[::9000])
    np.testing.assert_allclose(mine, (plain(mixture, grid).cumsum() * step)[::9000], atol=1e-3)
    assert mine[0] < 1e-9 and mine[-1] > 1 - 1e-9


def test_answers_lead_back_to_what_is_believed(chance):
    """In both predictions, for points laid out as latents are."""
    mixture, sigma = some(chance, 2), 0.8
    query = Query(torch.randn(1, 2, 3, 4).double(), torch.tensor(0), 0, sigma)
    alpha = 1 / math.hypot(1, sigma)
    clean = mixture.denoised(points(query), sigma)
    noise = to_points(mixture.answer(query).output)
    velocity = to_points(mixture.answer(query, "v_prediction").output)
    x = to_points(query.x)
    np.testing.assert_allclose((x - sigma * alpha * noise) / alpha, clean, atol=1e-9)
    np.testing.assert_allclose(alpha * x - sigma * alpha * velocity, clean, atol=1e-9)


def test_guidance_goes_on_from_one_answer_through_the_other(chance):
    uncond = some(chance)
    query = Query(torch.randn(1, 1, 1, 9).double(), torch.tensor(0), 0, 0.6)
    cond, x = uncond.subset([0, 2]), points(query)
    for scale in (0.0, 1.0, 3.5):
        answer = GuidedMixture(uncond, cond, scale).answer(query)
        wanted = uncond.score(x, 0.6) + scale * (cond.score(x, 0.6) - uncond.score(x, 0.6))
        np.testing.assert_allclose(to_points(answer.output), -0.6 * wanted, atol=1e-9)
        assert (answer.uncond is None) == (scale == 1)


def test_the_promise_has_the_guided_score_and_holds_all(chance):
    grid, step = np.linspace(-7, 7, 14001, retstep=True)
    uncond = some(chance)
    model = GuidedMixture(uncond, uncond.subset([1]), 2.5)
    density = model.target_density(grid)
    assert density.sum() * step == pytest.approx(1)
    slope = np.gradient(np.log(density[6000:8001]), step)[1:-1]
    x = grid[6001:8000, None]
    u, c = uncond.score(x, 0.0), model.cond.score(x, 0.0)
    np.testing.assert_allclose(slope, (u + 2.5 * (c - u))[:, 0], atol=1e-3)


def test_distance_is_how_far_numbers_are_moved(chance):
    """Against quantiles: the i-th of n numbers goes where the data have their i-th share."""
    mixture, grid = some(chance), np.linspace(-9, 9, 18001)
    cdf, x = mixture.cdf(grid), chance.normal(0.4, 1.3, 400)
    responsibilities = (np.arange(40000) + 0.5) / 40000
    moved = np.abs(np.repeat(np.sort(x), 100) - np.interp(responsibilities, cdf, grid)).mean()
    assert distance(x, grid, cdf) == pytest.approx(moved, abs=2e-3)
    far = np.full(10, 30.0)  # beyond the grid
    assert distance(far, grid, cdf) == pytest.approx(
        30 - (mixture.weights @ mixture.means)[0], 1e-3
    )


def test_luck_is_the_mean_distance_of_real_draws(chance):
    mixture, grid, count = some(chance), np.linspace(-9, 9, 3601), 500
    cdf = mixture.cdf(grid)
    found = []
    for _ in range(100):
        kinds = chance.choice(3, count, p=mixture.weights)
        x = chance.normal(mixture.means[kinds, 0], mixture.deviations[kinds])
        found.append(distance(x, grid, cdf))
    assert np.mean(found) == pytest.approx(expected_distance(count, grid, cdf), rel=0.2)


def test_even_noise_is_unit_noise():
    noise = even_noise(5000)[0, 0, 0]
    assert noise.mean() == pytest.approx(0, abs=1e-9) and noise.std() == pytest.approx(1, abs=2e-3)
    assert (noise.diff() > 0).all()


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler_a", "dpmpp_2m"])
def test_four_samplers_end_in_the_data(chance, sampler):
    """200 steps come as close as luck allows, without new noise closer; 4 steps do not."""
    mixture, grid, count = some(chance), np.linspace(-9, 9, 3601), 2000
    cdf, ends = mixture.cdf(grid), {}
    for steps in (4, 200):
        generator = torch.Generator().manual_seed(int(chance.integers(2**31)))
        coroutine = make_sampler(
            sampler, "automatic", SCHEDULER_CONFIG, even_noise(count), steps, generator, 0
        )
        ends[steps], queries = run_sampler(coroutine, mixture.answer)
        assert len(queries) == steps
    far = {steps: distance(x[:, 0], grid, cdf) for steps, x in ends.items()}
    noisy = sampler in ("ddpm", "euler_a")
    assert far[200] < (3.5 if noisy else 0.7) * expected_distance(count, grid, cdf)
    assert far[4] > 2 * far[200]


def test_a_wrong_model_is_noticed(chance):
    """The yardstick of the test above: a model that believes in half the data ends elsewhere."""
    mixture, grid = some(chance), np.linspace(-9, 9, 3601)
    half = lambda q: Answer(0.5 * mixture.answer(q).output)  # noqa: E731
    coroutine = make_sampler(
        "ddim", "automatic", SCHEDULER_CONFIG, even_noise(2000), 200, torch.Generator(), 0
    )
    x, _ = run_sampler(coroutine, half)
    assert distance(x[:, 0], grid, mixture.cdf(grid)) > 5 * expected_distance(
        2000, grid, mixture.cdf(grid)
    )
