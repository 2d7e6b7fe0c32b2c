"""What makes a sampler a coroutine: its own state, a stop between any two calls, a replay."""

import pytest
import torch

from pipeline.samplers import SAMPLERS, Answer, Query


def curved(query):
    """A model that is not linear, so that every difference in the history shows."""
    return Answer(torch.tanh(query.x * (1 + query.sigma)) + 0.001 * float(query.t))


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(p.x, q.x) and torch.equal(p.t, q.t) and (p.step, p.sigma) == (q.step, q.sigma)
        for p, q in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_steps_are_the_users(begin, drive, sampler, steps):
    coroutine, noise = begin(sampler, steps=steps)
    latents, queries = drive(coroutine, curved)
    counted = [q.step for q in queries]
    assert sorted(set(counted)) == list(range(steps)) and counted == sorted(counted)
    calls = {1: steps, 2: 2 * steps - 1, 3: max(1, 3 * steps - 3)}[SAMPLERS[sampler].calls]
    assert len(queries) == calls + (sampler == "plms" and steps > 1)
    assert latents.shape == noise.shape and latents.isfinite().all()
    for q in queries:
        assert isinstance(q, Query) and q.x.shape == noise.shape and q.t.ndim == 0
        assert q.t.dtype in (torch.int64, torch.float32) and isinstance(q.sigma, float)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [61, 200])
def test_many_steps(begin, drive, sampler, steps):
    """61: diffusers' trailing list is one too long. 200: Beta begins with equal timesteps."""
    schedule = "beta" if steps == 200 and "beta" in SAMPLERS[sampler].schedules else "automatic"
    if sampler == "lms":
        steps = 61  # diffusers integrates its coefficients anew, slowly
    coroutine, _ = begin(sampler, schedule, steps=steps, size=2)
    latents, queries = drive(coroutine, lambda query: Answer(query.x * 0.5))
    assert latents.isfinite().all() and queries[-1].step == steps - 1
    assert min(float(q.t) for q in queries) >= 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_at_once_do_not_meet(begin, drive, sampler):
    alone = [drive(begin(sampler, seed=seed)[0], curved) for seed in (1, 2)]
    pair = [begin(sampler, seed=seed)[0] for seed in (1, 2)]
    queries = [[next(coroutine)] for coroutine in pair]
    ends = [None, None]
    while None in ends:
        for i, coroutine in enumerate(pair):
            try:
                queries[i].append(coroutine.send(curved(queries[i][-1])))
            except StopIteration as end:
                ends[i] = end.value
    for i in range(2):
        assert torch.equal(ends[i], alone[i][0]) and same(queries[i], alone[i][1])
    assert not torch.equal(*ends)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_recorded_answers_lead_back_to_the_same_place(begin, drive, sampler):
    latents, queries = drive(begin(sampler, seed=5)[0], curved)
    answers = [curved(q) for q in queries]
    again, _ = begin(sampler, seed=5)
    replayed = [next(again)]
    for answer in answers[:3]:
        replayed.append(again.send(answer))
    assert same(replayed, queries[:4])
    for q in queries[3:-1]:
        assert torch.equal(again.send(curved(q)).x, queries[len(replayed)].x)
        replayed.append(q)
    with pytest.raises(StopIteration) as end:
        again.send(answers[-1])
    assert torch.equal(end.value.value, latents)


def test_the_seed_alone_feeds_the_noise(begin, drive):
    """The global generator neither matters nor moves."""
    noisy = "ddpm euler_a dpm2_a dpmpp_2s_a dpmpp_2m_sde dpmpp_2m_sde_heun dpmpp_3m_sde dpmpp_sde"
    for sampler in (*noisy.split(), "lcm", "tcd", "restart"):
        results = []
        steps = 20 if sampler == "restart" else 5
        for other in (0, 1):
            torch.manual_seed(other)
            before = torch.get_rng_state()
            results.append(drive(begin(sampler, steps=steps, seed=5)[0], curved)[0])
            assert torch.equal(before, torch.get_rng_state()), sampler
        assert torch.equal(*results), sampler


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_closing_stops(begin, sampler):
    coroutine, _ = begin(sampler)
    query = next(coroutine)
    coroutine.send(curved(query))
    coroutine.close()
    with pytest.raises(StopIteration):
        next(coroutine)


def test_half_precision_answers_leave_the_latents_alone(begin, drive):
    """The latents keep the noise's type, whatever the UNet computes in."""
    for sampler in SAMPLERS:
        coroutine, noise = begin(sampler)
        latents, queries = drive(coroutine, lambda q: Answer(curved(q).output.bfloat16()))
        assert latents.dtype == noise.dtype == queries[-1].x.dtype == torch.float32, sampler
