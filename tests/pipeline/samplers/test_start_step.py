"""Samplers that begin in the middle of the way, from a picture with noise: image to image."""

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.samplers import SAMPLERS, SCHEDULES, Answer, convergence, make_sampler, start_step_for

PLACES = [(1, 0), (2, 0), (2, 1), (20, 0), (20, 7), (20, 19), (45, 5)]  # steps, begin
MEMORYLESS = ["euler", "heun", "dpm2", "ddim", "ddim_cfgpp", "restart"]  # and without fresh noise
# These end at the lowest noise level, not at zero, where the configuration says so or for good.
NEVER_ZERO = {"ddim", "ddim_cfgpp", "plms", "tcd", "deis"}
LOWEST = 0.029167  # sigma of timestep 0


def run(sampler, believe, steps, begin=0, clean=None, schedule="automatic", noise=None, **changes):
    """Final latents, the queries and the first noise; `believe(query)` gives the clean latents."""
    config = convergence.CONFIG | changes
    velocity = config["prediction_type"] == "v_prediction"
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn((1, 2, 4, 4) if clean is None else clean.shape, generator=generator)
    noise = drawn if noise is None else noise
    way = make_sampler(
        sampler, schedule, config, noise, steps, generator, 3, start_step=begin, clean=clean
    )
    queries = [next(way)]
    while True:
        q = queries[-1]
        alpha = 1 / math.sqrt(1 + q.sigma**2)
        here, beta = believe(q).to(q.x), q.sigma * alpha
        output = (alpha * q.x - here) / beta if velocity else (q.x - alpha * here) / beta
        try:
            queries.append(way.send(Answer(output)))
        except StopIteration as end:
            return end.value, queries, noise


def scaled(query):
    """A query's x in k-diffusion's scale, data plus sigma times noise."""
    return query.x * math.sqrt(1 + query.sigma**2)


def exact(query):
    """What the denoiser of convergence.py's mixture says to a query."""
    x0 = convergence.MIXTURE.denoised(convergence.points(query), query.sigma)
    return torch.from_numpy(x0.T.copy()).reshape(query.x.shape)


def mixture(size, seed=0):
    """Latents (1, 2, size, size), each pixel a point drawn from convergence.py's mixture."""
    generator = np.random.default_rng(seed)
    m, kind = convergence.MIXTURE, generator.choice(3, size**2, p=convergence.MIXTURE.weights)
    x = m.means[kind] + m.deviations[kind, None] * generator.normal(size=(size**2, 2))
    return torch.from_numpy(x.T.copy()).reshape(1, 2, size, size)


def test_steps_are_counted_as_in_a1111():
    assert [start_step_for(s, 20) for s in (0, 0.3, 0.5, 0.75, 1)] == [19, 13, 9, 4, 0]
    assert {start_step_for(s, 1) for s in np.linspace(0, 1, 11)} == {0}
    for steps in (2, 7, 150, 1000):
        found = [start_step_for(s, steps) for s in np.linspace(0, 1, 101)]
        assert found == sorted(found, reverse=True)
        assert found[0] == steps - 1 and found[-1] == 0


CASES = [(steps, begin, how) for steps, begin in PLACES for how in ("epsilon", "v_prediction")]
OTHERS = [(2, 1, "v_prediction"), (20, 13, "epsilon")]  # with a schedule besides the automatic


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_believed_comes_out(sampler):
    """Where the clean latents are set they are what is drawn, which inpainting rests on.

    The samplers that never reach zero keep a share of how far they began from there, so they begin
    at the target, as the kept part of a picture does, and end at it under the lowest level's noise.
    """
    row = SAMPLERS[sampler]
    for schedule in row.schedules:
        for steps, begin, how in CASES if schedule == "automatic" else OTHERS:
            target = clean = torch.randn(1, 2, 4, 4)
            if sampler not in NEVER_ZERO:
                clean = torch.randn(1, 2, 4, 4)
            flags = {"schedule": schedule, "prediction_type": how}
            got, queries, noise = run(
                sampler, lambda query, target=target: target, steps, begin, clean, **flags
            )
            where, left = (schedule, steps, begin, how), steps - begin
            counted = [q.step for q in queries]
            assert counted == sorted(counted) and set(counted) == set(range(left)), where
            calls = {1: left, 2: 2 * left - 1, 3: max(1, 3 * left - 3)}[row.calls]
            assert len(queries) == calls + (sampler == "plms" and left > 1), where
            assert torch.allclose(scaled(queries[0]), clean + queries[0].sigma * noise, atol=1e-4)
            if sampler == "tcd":  # its last noise is fresh
                assert (got - target).std() < 2 * LOWEST, where
            elif sampler in NEVER_ZERO:
                lowest = queries[-1].sigma if SCHEDULES[schedule].formula else LOWEST
                kept = (target + lowest * noise) / math.sqrt(1 + lowest**2)
                assert (got - kept).abs().max() < (2e-2 if steps == 45 else 1e-4), where
            else:
                assert (got - target).abs().max() < 1e-4, where


@pytest.mark.parametrize("sampler", ["ddim", "ddim_cfgpp", "plms"])
def test_some_reach_zero_if_the_configuration_says_so(sampler):
    target, clean = torch.randn(2, 1, 2, 4, 4).unbind()
    got, _, _ = run(sampler, lambda q: target, 20, 7, clean, set_alpha_to_one=True)
    assert (got - target).abs().max() < 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_levels_are_those_of_the_whole_way(sampler):
    """And the timesteps: image to image does not see another schedule than text to image."""
    for schedule in SAMPLERS[sampler].schedules:
        _, whole, _ = run(sampler, exact, 7, schedule=schedule)
        for begin in (1, 4, 6):
            _, part, _ = run(sampler, exact, 7, begin, torch.zeros(1, 2, 2, 2), schedule)
            seen = [(float(q.t), q.sigma) for q in whole if q.step >= begin]
            if sampler == "plms" and len(part) > 1:  # which now asks twice there
                seen.insert(1, seen[1])
            np.testing.assert_allclose([(float(q.t), q.sigma) for q in part], seen, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", MEMORYLESS)
def test_without_a_memory_the_way_is_the_same(sampler, prediction):
    """Begun at any step from where the whole run was then, a sampler ends where that ended."""
    flags = {"prediction_type": prediction}
    for schedule in SAMPLERS[sampler].schedules:
        end, whole, _ = run(sampler, exact, 9, schedule=schedule, **flags)
        for begin in (0, 1, 4, 8):
            x = scaled(next(q for q in whole if q.step == begin))
            got, _, _ = run(sampler, exact, 9, begin, x, schedule, torch.zeros_like(x), **flags)
            assert (got - end).abs().max() < 2e-5, (schedule, begin)


@pytest.mark.parametrize("sampler", convergence.ORDERS)
def test_samplers_without_noise_converge_to_the_exact_flow(sampler):
    """In their own order up to the second: the first step, without a memory, is of that."""
    row = convergence.ORDERS[sampler]
    counts = row.counts[::3]
    clean = mixture(8)
    errors = []
    for steps in counts:
        begin = steps // 5
        _, queries, _ = run(sampler, exact, steps, begin, clean, row.schedule)
        last = next(q for q in queries if q.step == steps - begin - 1)
        if row.schedule == "uniform":
            last = [q for q in queries if int(q.t) == convergence.COMMON][-1]
        flow = convergence.MIXTURE.flow(
            convergence.points(queries[0]), queries[0].sigma, last.sigma
        )
        errors.append(float(np.sqrt(((convergence.points(last) - flow) ** 2).mean())))
    assert convergence.slope(counts, errors) > min(row.order, 2) - 0.25, errors
    assert errors[-1] < (0.02 if row.order == 1 or sampler == "restart" else 1e-3), errors


@pytest.mark.parametrize("sampler", convergence.NOISY)
def test_samplers_with_noise_keep_the_moments(sampler):
    """From pictures of the very distribution, made noisy, come pictures of it."""
    steps = convergence.NOISY[sampler]
    got, _, _ = run(sampler, exact, steps, steps // 3, mixture(40))
    points = got.double().numpy()[0].reshape(2, -1).T
    for name, (distance, standard_errors) in convergence.deviations(points).items():
        assert standard_errors < 4, (name, distance)


@pytest.mark.parametrize("steps, begin, restarts", [(30, 11, 0), (30, 10, 1), (60, 20, 2)])
def test_restart_counts_the_steps_that_are_left(steps, begin, restarts):
    """A1111's list: Karras's levels between the first and the last that are left, then restarts."""
    _, whole, _ = run("restart", exact, 19, schedule="karras")
    low, high = whole[-1].sigma, whole[0].sigma
    _, queries, _ = run("restart", exact, steps, begin, torch.zeros(1, 2, 4, 4), "karras")
    first = {q.step: q.sigma for q in reversed(queries)}
    levels = [first[step] for step in range(steps - begin)]
    assert sum(b > a for a, b in itertools.pairwise(levels)) == restarts
    ends = high ** (1 / 7), low ** (1 / 7)
    top = np.linspace(*ends, steps)[begin] ** 7
    length = {0: 0, 1: 9, 2: (steps - begin) // 4}[restarts]
    way = np.linspace(top ** (1 / 7), ends[1], steps - begin - length * restarts) ** 7
    assert levels[0] == pytest.approx(top, rel=1e-5)
    assert all(np.abs(np.array(levels) / level - 1).min() < 1e-5 for level in way)


def test_zero_terminal_snr_at_its_first_step():
    """There a picture is next to nothing, and is given all the same."""
    flags = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    clean = 100 * torch.randn(1, 2, 4, 4)
    for sampler in SAMPLERS:
        got, queries, noise = run(sampler, exact, 6, 0, clean, **flags)
        x = (clean + queries[0].sigma * noise) / math.sqrt(1 + queries[0].sigma ** 2)
        assert torch.allclose(queries[0].x, x, atol=1e-4), sampler
        assert got.isfinite().all(), sampler


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_a_picture_it_is_text_to_image(sampler):
    whole, _, _ = run(sampler, exact, 6)
    assert torch.equal(run(sampler, exact, 6, 3)[0], whole)


@pytest.mark.parametrize("begin", [-1, 8, 100])
def test_a_step_that_is_not_there_is_refused(begin):
    with pytest.raises(InputError, match=f"start_step must be from 0 to 7, not {begin}"):
        run("euler", exact, 8, begin, torch.zeros(1, 2, 4, 4))
