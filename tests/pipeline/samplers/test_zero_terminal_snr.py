"""Zero terminal SNR with every sampler and schedule: finite, and it leads to the right place."""

import math

import numpy as np
import pytest
import torch

from pipeline.samplers import SAMPLERS, Answer, convergence, make_sampler

ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
CASES = [  # steps and what the configuration says besides
    (2, {}),
    (5, {"prediction_type": "v_prediction"}),
    (1, ZERO),
    (2, ZERO),
    (5, ZERO),
    (5, {"rescale_betas_zero_snr": True}),
    (5, ZERO | {"timestep_spacing": "leading"}),
]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_pair_ends_finite(drive, sampler):
    for schedule in SAMPLERS[sampler].schedules:
        for steps, changes in CASES:
            noise = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
            config = convergence.CONFIG | changes
            coroutine = make_sampler(sampler, schedule, config, noise, steps, torch.Generator(), 1)
            latents, queries = drive(coroutine, lambda query: Answer(query.x * 0.9))
            assert latents.isfinite().all(), (schedule, steps, changes)
            counted = [q.step for q in queries]
            assert counted == sorted(counted) and set(counted) == set(range(steps))
            assert all(math.isfinite(q.sigma) and q.x.isfinite().all() for q in queries)
            assert {q.t.dtype for q in queries} <= {torch.int64, torch.float32}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_begins_with_nothing_but_noise(drive, sampler):
    noise = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    config = convergence.CONFIG | ZERO
    coroutine = make_sampler(sampler, "uniform", config, noise, 8, torch.Generator(), 2)
    _, queries = drive(coroutine, lambda query: convergence.MIXTURE.answer(query, "v_prediction"))
    first, second = queries[0], next(q for q in queries if q.step == 1)
    assert first.sigma == pytest.approx(4096, rel=1e-6) and float(first.t) == 999
    assert torch.allclose(first.x, noise, atol=1e-3) and second.sigma < 500


@pytest.mark.parametrize("sampler", convergence.ORDERS)
def test_deterministic_samplers_still_converge(sampler):
    """To the ODE's solution from sigma 4096 down, taken where the last step begins."""
    order = min(convergence.ORDERS[sampler].order, 2)
    steps = 19 if sampler == "restart" else 50
    _, queries = convergence.draw(sampler, "uniform", steps, 8, **ZERO)
    last = next(q for q in reversed(queries) if q.step == steps - 1)
    first = queries[0]
    exact = convergence.MIXTURE.flow(convergence.points(first), first.sigma, last.sigma)
    error = np.sqrt(((convergence.points(last) - exact) ** 2).mean())
    assert error < {1: 0.03, 2: 0.003}[order] * (4 if sampler == "restart" else 1)


@pytest.mark.parametrize("sampler", [s for s in convergence.NOISY if s not in ("ddpm", "euler_a")])
def test_samplers_that_draw_noise_still_reproduce_the_moments(sampler):
    x, _ = convergence.draw(sampler, "sgm_uniform", 50, 40, **ZERO)
    for name, (distance, standard_errors) in convergence.deviations(x).items():
        assert standard_errors < 5, (name, distance)
