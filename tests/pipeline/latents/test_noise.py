"""The first noise: whose it is, how a variation moves it, and that it stays unit noise."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.latents import noise
from pipeline.options import MAX_SEED, GenerateOptions

SEEDS = st.integers(0, MAX_SEED)


def drawn(seed: int, shape, **more) -> torch.Tensor:
    return noise.first_noise(noise.generator_for(seed), *shape, **more)


def slow(share: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The formula column by column in fp64, from the angle between two vectors."""
    out = torch.empty_like(low, dtype=torch.float64)
    _, channels, _, width = low.shape
    for c in range(channels):
        for x in range(width):
            a, b = (n[0, c, :, x].double().tolist() for n in (low, high))
            dot = sum(p * q for p, q in zip(a, b, strict=True))
            angle = math.acos(dot / math.hypot(*a) / math.hypot(*b))
            left, right = math.sin((1 - share) * angle), math.sin(share * angle)
            out[0, c, :, x] = torch.tensor(
                [(left * p + right * q) / math.sin(angle) for p, q in zip(a, b, strict=True)]
            )
    return out


@settings(max_examples=25, deadline=None)
@given(SEEDS, SEEDS, st.integers(1, 4), st.integers(1, 20), st.integers(1, 20))
def test_its_ends_are_the_seeds_own_noises_to_the_bit(seed, other, channels, height, width):
    shape = channels, height, width
    assert torch.equal(drawn(seed, shape, variation=(other, 0.0)), drawn(seed, shape))
    assert torch.equal(drawn(seed, shape, variation=(None, 0.5)), drawn(seed, shape))
    assert torch.equal(drawn(seed, shape, variation=(other, 1.0)), drawn(other, shape))


@settings(max_examples=15, deadline=None)
@given(SEEDS, SEEDS, st.floats(0.01, 0.99), st.integers(8, 24), st.integers(1, 9))
def test_between_them_it_is_the_arc_of_each_column(seed, other, share, height, width):
    if seed == other:
        return
    shape = 4, height, width
    low, high = drawn(seed, shape), drawn(other, shape)
    got = drawn(seed, shape, variation=(other, share))
    assert torch.allclose(got.double(), slow(share, low, high), atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0, 1), st.integers(1, 20), st.integers(1, 20))
def test_a_seed_varied_with_itself_is_itself(seed, share, height, width):
    shape = 4, height, width
    got = drawn(seed, shape, variation=(seed, share))
    assert torch.allclose(got, drawn(seed, shape), atol=1e-6)


@pytest.mark.parametrize("height", [1, 2, 4, 8, 16, 64, 128])
def test_its_variance_stays_one(height):
    width = 20_000 // height
    for share in (0.1, 0.3, 0.5, 0.9):
        seed, other = random.randrange(MAX_SEED), random.randrange(MAX_SEED)
        got = drawn(seed, (4, height, width), variation=(other, share))
        # 80,000 numbers: 0.005 is one standard deviation of their variance
        assert abs(got.var() - 1) < 0.03 and abs(got.mean()) < 0.03


def test_even_the_smallest_latents_stay_bounded():
    for seed in range(50):
        got = drawn(seed, (1, 1, 1), variation=(seed + 1, 0.5))
        assert got.isfinite().all() and got.abs().max() < 30


@settings(max_examples=15, deadline=None)
@given(SEEDS, SEEDS, st.floats(0, 1))
def test_the_noise_of_the_steps_is_that_of_the_seed(seed, other, share):
    plain, varied = noise.generator_for(seed), noise.generator_for(seed)
    noise.first_noise(plain, 4, 8, 8)
    noise.first_noise(varied, 4, 8, 8, variation=(other, share))
    assert torch.equal(torch.randn(9, generator=plain), torch.randn(9, generator=varied))


def test_a_batch_counts_the_seed_up_or_where_it_is_varied_the_variation_seed():
    plain = GenerateOptions(seed=7, variation_seed=100)
    varied = GenerateOptions(seed=7, variation_seed=100, variation_strength=0.1)
    assert [noise.seeds(plain, i) for i in range(3)] == [(7, None), (8, None), (9, None)]
    assert [noise.seeds(varied, i) for i in range(3)] == [(7, 100), (7, 101), (7, 102)]


def test_alphas_cumprod_is_the_product_of_each_step_s_alpha():
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    shares = noise.alphas_cumprod(
        config | {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000}
    )
    assert len(shares) == 1000
    product, first, last = 1.0, 0.00085**0.5, 0.012**0.5
    for t in range(1000):
        product *= 1 - (first + (last - first) * t / 999) ** 2
        assert float(shares[t]) == pytest.approx(product, rel=1e-3)
