"""The tiny model that learns in front of visitors: its size, its data, and that it does learn."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.training import tiny

STEPS = 80


@pytest.fixture(scope="module")
def snapshots():
    return list(tiny.train(steps=STEPS, seed=3, every=40))


@pytest.mark.quick
def test_it_has_about_a_hundred_thousand_parameters():
    count = sum(p.numel() for p in tiny.TinyUNet().parameters())
    assert 80_000 <= count <= 120_000


def test_its_samples_come_closer_to_the_data(snapshots):
    """By the energy distance to pictures that it never saw; and the loss falls."""
    distances = [s.distance for s in snapshots]
    assert [s.step for s in snapshots] == [0, 40, 80]
    assert distances[-1] < 0.6 * distances[0]
    fresh = tiny.draw_shapes(torch.arange(200) % 4, torch.Generator().manual_seed(99))
    assert tiny.energy_distance(snapshots[-1].samples, fresh) < 0.6 * tiny.energy_distance(
        snapshots[0].samples, fresh
    )
    assert len(snapshots[-1].losses) == STEPS // 20
    assert snapshots[-1].losses[-1] < 0.8 * snapshots[-1].losses[0]


def test_a_seed_and_a_number_of_steps_give_the_same(snapshots):
    *_, again = tiny.train(steps=40, seed=3, every=40)
    assert torch.equal(again.samples, snapshots[1].samples)
    assert again.losses == snapshots[1].losses
    *_, other = tiny.train(steps=2, seed=4, every=2)
    assert not torch.equal(other.samples, snapshots[0].samples)


@pytest.mark.quick
def test_the_energy_distance_is_its_formula():
    a, b = torch.randn(5, 3, 2, 2), torch.randn(4, 3, 2, 2) + 0.5

    def mean(x, y, same=False):
        pairs = [
            math.dist(p.flatten().tolist(), q.flatten().tolist())
            for i, p in enumerate(x)
            for j, q in enumerate(y)
            if not (same and i == j)
        ]
        return sum(pairs) / len(pairs)

    expected = (2 * mean(a, b) - mean(a, a, True) - mean(b, b, True)) / 12**0.5
    assert tiny.energy_distance(a, b) == pytest.approx(expected, abs=1e-5)


def test_equal_distributions_are_near_and_noise_is_far():
    shapes = torch.arange(400) % 4
    one, two = (tiny.draw_shapes(shapes, torch.Generator().manual_seed(s)) for s in (1, 2))
    noise = torch.randn(one.shape)
    assert abs(tiny.energy_distance(one, two)) < 0.05 * tiny.energy_distance(one, noise)


@pytest.mark.parametrize("shape", range(len(tiny.SHAPES)))
def test_pictures_show_their_shape(shape):
    drawn = tiny.draw_shapes(torch.full((64,), shape), torch.Generator().manual_seed(0))
    assert drawn.shape == (64, 3, 16, 16)
    assert drawn.abs().max() <= 1
    ground = drawn[:, :, :1, :1]
    strength = (drawn - ground).abs().amax(1).flatten(1)
    covered = (strength / strength.amax(1, keepdim=True)).sum(1).mean()
    # Of a square of 10 pixels, which is the mean size.
    share = {"disc": math.pi / 4, "square": 0.81, "triangle": 0.9025 / 2, "ring": math.pi / 4 * 0.8}
    assert float(covered) == pytest.approx(100 * share[tiny.SHAPES[shape]], rel=0.1)


def test_a_network_that_sees_the_picture_draws_it():
    """Sampling is right where the network is: it returns what a perfect one believes in."""
    truth = tiny.draw_shapes(torch.arange(4), torch.Generator().manual_seed(1))
    drawn = tiny.sample(lambda x, angle, shape: truth, torch.arange(4), torch.Generator())
    assert torch.allclose(drawn, truth, atol=1e-5)


def test_the_mixture_keeps_its_size():
    x0, eps = torch.randn(64, 3, 16, 16), torch.randn(64, 3, 16, 16)
    mixed = tiny.add_noise(x0, eps, torch.rand(64) * math.pi / 2)
    assert float(mixed.square().mean()) == pytest.approx(1, abs=0.05)
    angles = torch.tensor([0.0, math.pi / 2])
    assert torch.allclose(tiny.add_noise(x0[:2], eps[:2], angles)[0], x0[0])
    assert torch.allclose(tiny.add_noise(x0[:2], eps[:2], angles)[1], eps[1], atol=1e-6)


def test_the_sheet_has_a_row_for_each_shape(snapshots):
    sheet = tiny.make_sheet(snapshots[-1].samples)
    assert sheet.size == (16 * tiny.SAMPLES_PER_SHAPE, 16 * len(tiny.SHAPES))
    last = snapshots[-1].samples[-1]
    pixel = tuple(round((float(v) + 1) * 127.5) for v in last[:, 15, 15])
    assert sheet.getpixel((16 * tiny.SAMPLES_PER_SHAPE - 1, 63)) == pytest.approx(pixel, abs=1)
