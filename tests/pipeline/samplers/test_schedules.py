"""Every schedule that diffusers does not have against its formula, written out here again."""

import math

import numpy as np
import pytest
import torch

from pipeline.samplers import SAMPLERS, SCHEDULES, Answer, make_sampler, schedules

TIMES = np.arange(1000)


def table():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    abar = torch.cumprod(1 - betas, dim=0).double().numpy()
    return np.sqrt((1 - abar) / abar)


def polyexponential(n):
    low, high = table()[0], table()[-1]
    ramp = [1 - i / (n - 1) for i in range(n)]
    return [math.exp(r**1.0 * (math.log(high) - math.log(low)) + math.log(low)) for r in ramp]


def kl_optimal(n):
    low, high = math.atan(table()[0]), math.atan(table()[-1])
    return [math.tan(i / n * low + (1 - i / n) * high) for i in range(n)]


SD1 = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
SDXL = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]


def align_your_steps(n, levels=SD1):
    found = []
    for i in range(n):
        place = i / (n - 1) * 10
        below = min(int(place), 9)
        share = place - below
        found.append(levels[below] ** (1 - share) * levels[below + 1] ** share)
    return found


def simple(n):
    return [table()[999 - int(i * 1000 / n)] for i in range(n)]


def normal(n):
    found = []
    for i in range(n):
        t = 999 * (1 - i / (n - 1))
        below = min(int(t), 998)
        share = t - below
        found.append(table()[below] ** (1 - share) * table()[below + 1] ** share)
    return found


def ddim(n):
    return [table()[1 + i * (1000 // n)] for i in range(n)][::-1]


EXPECTED = {f.__name__: f for f in (polyexponential, kl_optimal, align_your_steps, simple, normal)}
EXPECTED["ddim"] = ddim


def levels(begin, drive, sampler, schedule, steps, prediction="epsilon"):
    coroutine, _ = begin(sampler, schedule, prediction, steps, size=2)
    _, queries = drive(coroutine, lambda query: Answer(torch.zeros_like(query.x)))
    first = {q.step: q.sigma for q in reversed(queries)}
    return [first[step] for step in range(steps)], queries


def test_every_formula_is_compared():
    assert set(EXPECTED) == {key for key, row in SCHEDULES.items() if row.formula}
    assert all(row.formula in (None, key) for key, row in SCHEDULES.items())


@pytest.mark.parametrize("schedule", EXPECTED)
def test_levels_equal_the_formula(begin, drive, schedule):
    for steps in (2, 10, 11, 20, 30, 137):
        found, _ = levels(begin, drive, "euler", schedule, steps)
        np.testing.assert_allclose(found, EXPECTED[schedule](steps), rtol=1e-6)


@pytest.mark.parametrize("sampler", [k for k, row in SAMPLERS.items() if "simple" in row.schedules])
def test_every_sampler_has_the_same_levels_and_their_timesteps(begin, drive, sampler):
    for schedule, formula in EXPECTED.items():
        found, queries = levels(begin, drive, sampler, schedule, 9, "v_prediction")
        np.testing.assert_allclose(found, formula(9), rtol=1e-6, err_msg=schedule)
        for q in queries:
            t = np.interp(math.log(q.sigma), np.log(table()), TIMES)
            assert abs(t - float(q.t)) < 1e-3, schedule


@pytest.mark.parametrize("schedule", EXPECTED)
def test_one_step_starts_at_the_top(begin, drive, schedule):
    for sampler in ("euler", "heun", "dpmpp_2m", "deis", "restart"):
        found, queries = levels(begin, drive, sampler, schedule, 1)
        assert found[0] == pytest.approx(table()[-1], rel=1e-6) and float(queries[0].t) == 999


def test_sd_xl_has_a_table_of_its_own(configs, drive):
    config = configs["epsilon"] | {"align_your_steps": "sdxl"}
    noise = torch.zeros(1, 4, 2, 2)
    for steps in (10, 11):
        coroutine = make_sampler(
            "euler", "align_your_steps", config, noise, steps, torch.Generator(), 0
        )
        _, queries = drive(coroutine, lambda query: Answer(torch.zeros_like(query.x)))
        expected = align_your_steps(steps, SDXL)
        np.testing.assert_allclose([q.sigma for q in queries], expected, rtol=1e-6)


def test_ancestral_euler_takes_diffusers_levels(begin, drive):
    """Its class in diffusers has no Karras, Exponential or Beta."""
    for schedule in ("karras", "exponential", "beta"):
        ours, _ = levels(begin, drive, "euler_a", schedule, 12)
        eulers, _ = levels(begin, drive, "euler", schedule, 12)
        assert ours == eulers and ours[0] > ours[1]


def test_ddim_with_a_step_for_every_timestep():
    trained = np.array([0.1, 0.2, 0.4, 0.9])
    assert schedules.ddim(4, trained, {}).tolist() == [0.9, 0.4, 0.2, 0.1]
    assert schedules.ddim(2, trained, {}).tolist() == [0.9, 0.2]
