"""Noise schedules and samplers against k-diffusion's formulas, written out here in its own scale.

k-diffusion computes with x = x0 + sigma eps; a Query's x is that divided by sqrt(1 + sigma**2).
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.samplers import SAMPLERS, SCHEDULES, Answer

WHOLE = (
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun",
    "unipc",
    "deis",
)  # count with steps + 1, whole timesteps


def table():
    """sigma of all 1000 timesteps of Stable Diffusion, in single precision as it was trained."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    abar = torch.cumprod(1 - betas, dim=0)
    return (((1 - abar) / abar) ** 0.5).double().numpy()


def karras(n, low, high, rho=7):  # EDM, arXiv 2206.00364, eq. 5
    ramp = np.linspace(0, 1, n)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def exponential(n, low, high):
    return np.exp(np.linspace(math.log(high), math.log(low), n))


def beta(n, low, high, a=0.6, b=0.6):  # arXiv 2407.12173 as A1111 has it: over sigma
    from scipy.stats import beta as distribution

    return low + distribution.ppf(1 - np.linspace(0, 1, n), a, b) * (high - low)


def trailing(n):  # arXiv 2305.08891, table 2
    return np.round(1000 - np.arange(n) * 1000 / n) - 1


def leading(n, whole):
    return (np.arange(n)[::-1] + whole) * (1000 // (n + whole)) + 1


def levels(queries, sampler):
    """The noise level at which each step begins, from what was asked."""
    if sampler == "plms":  # calls at t0, t1 (to correct the first step), t1 again, t2, ...
        return np.array([q.sigma for q in queries[:2] + queries[3:]])
    first = {q.step: q.sigma for q in reversed(queries)}
    return np.array([first[step] for step in sorted(first)])


def takes(schedule, steps=1):
    """Restart goes back up from 20 steps on; LCM and TCD have a grid of their own."""
    other = {"lcm", "tcd"} | ({"restart"} if steps >= 20 else set())
    return [k for k, row in SAMPLERS.items() if schedule in row.schedules and k not in other]


def nothing(query):
    return Answer(torch.zeros_like(query.x))


def test_the_table_is_stable_diffusions():
    sigmas = table()
    assert sigmas[0] == pytest.approx(0.0292, abs=5e-5)
    assert sigmas[-1] == pytest.approx(14.6146, abs=5e-4)


@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize(
    ("schedule", "formula"),
    [("karras", karras), ("exponential", exponential), ("beta", beta)],
)
def test_sigmas_over_the_whole_range(begin, drive, schedule, formula, steps):
    sigmas = table()
    expected = formula(steps, sigmas[0], sigmas[-1])
    for sampler in takes(schedule, steps):
        _, queries = drive(begin(sampler, schedule, "v_prediction", steps)[0], nothing)
        np.testing.assert_allclose(levels(queries, sampler), expected, rtol=1e-6, err_msg=sampler)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 61])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sgm_uniform_sigmas(begin, drive, prediction, steps):
    """Lin et al.'s whole timesteps; A1111's linspace(999, 0, n + 1) is within one of them.

    61 steps: diffusers' own list would go on to timestep -1.
    """
    expected = table()[trailing(steps).astype(int)]
    for sampler in takes("sgm_uniform", steps) if steps < 61 else ("ddim", "plms", "euler", "heun"):
        _, queries = drive(begin(sampler, "sgm_uniform", prediction, steps)[0], nothing)
        np.testing.assert_allclose(levels(queries, sampler), expected, rtol=1e-6, err_msg=sampler)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_uniform_sigmas_are_the_checkpoints_own(begin, drive, steps):
    for sampler in takes("uniform", steps):
        _, queries = drive(begin(sampler, "uniform", "v_prediction", steps)[0], nothing)
        expected = table()[trailing(steps).astype(int)]
        np.testing.assert_allclose(levels(queries, sampler), expected, rtol=1e-6, err_msg=sampler)
        _, queries = drive(begin(sampler, "uniform", "leading", steps)[0], nothing)
        expected = table()[leading(steps, sampler in WHOLE)]
        np.testing.assert_allclose(levels(queries, sampler), expected, rtol=1e-6, err_msg=sampler)


def test_lcm_walks_the_distillations_grid(begin, drive):
    """Every fiftieth of the range, 1000 // 50 apart; more steps than 50 take a finer grid."""
    _, queries = drive(begin("lcm", "uniform", "epsilon", 4)[0], nothing)
    assert [int(q.t) for q in queries] == [999, 759, 499, 259]
    _, queries = drive(begin("lcm", "uniform", "epsilon", 200)[0], nothing)
    assert [int(q.t) for q in queries] == list(range(999, 0, -5))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_timestep_belongs_to_the_sigma(begin, drive, sampler):
    """At most one timestep apart: some of diffusers' classes round or cut off the fraction."""
    log_sigmas, row = np.log(table()), SAMPLERS[sampler]
    for schedule in row.schedules:
        _, queries = drive(begin(sampler, schedule, "epsilon", 9)[0], nothing)
        for q in queries:
            t = np.interp(math.log(q.sigma), log_sigmas, np.arange(1000))
            assert abs(t - float(q.t)) < 1.001, (schedule, t, q.t)
            exact = (
                sampler in ("euler", "euler_a", "heun", "lms") or row.file != "diffusers_adapter"
            )
            exact = (exact and schedule in row.schedules[2:]) or SCHEDULES[schedule].formula
            if exact and sampler != "ddim_cfgpp":
                assert abs(t - float(q.t)) < 0.02, (schedule, t, q.t)


def euler(D, x, sigmas, noise):
    for s, s_next in pairwise(sigmas):
        x = x + (x - D(x, s)) / s * (s_next - s)
    return x


def euler_a(D, x, sigmas, noise):
    for s, s_next in pairwise(sigmas):
        up = min(s_next, math.sqrt(s_next**2 * (s**2 - s_next**2) / s**2))
        down = math.sqrt(s_next**2 - up**2)
        x = x + (x - D(x, s)) / s * (down - s)
        if s_next > 0:
            x = x + noise() * up
    return x


def heun(D, x, sigmas, noise):
    for s, s_next in pairwise(sigmas):
        d, dt = (x - D(x, s)) / s, s_next - s
        if s_next == 0:
            x = x + d * dt
        else:
            x_2 = x + d * dt
            d_2 = (x_2 - D(x_2, s_next)) / s_next
            x = x + (d + d_2) / 2 * dt
    return x


def dpmpp_2m(D, x, sigmas, noise):
    old, h_last = None, None
    for s, s_next in pairwise(sigmas):
        denoised = D(x, s)
        if s_next == 0:
            return denoised  # h is infinite: expm1(-h) is -1
        h = math.log(s) - math.log(s_next)
        mixed = denoised
        if old is not None:
            r = h_last / h
            mixed = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * old
        x = s_next / s * x - math.expm1(-h) * mixed
        old, h_last = denoised, h
    return x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("sampler", "schedule", "formula"),
    [
        ("euler", "sgm_uniform", euler),
        ("euler", "karras", euler),
        ("euler_a", "sgm_uniform", euler_a),
        ("heun", "sgm_uniform", heun),
        ("heun", "karras", heun),
        ("dpmpp_2m", "sgm_uniform", dpmpp_2m),
        ("dpmpp_2m", "karras", dpmpp_2m),
    ],
)
def test_samplers_follow_k_diffusion(
    begin, drive, gaussian, sampler, schedule, formula, prediction
):
    low, high = table()[[0, -1]]
    for steps in (1, 2, 7, 20):
        plan = {
            "karras": karras(steps, low, high),
            "sgm_uniform": table()[trailing(steps).astype(int)],
        }
        sigmas = [*plan[schedule], 0.0]
        coroutine, noise = begin(sampler, schedule, prediction, steps, seed=11)
        ours, queries = drive(coroutine, gaussian.model(prediction))
        generator = torch.Generator().manual_seed(11)
        torch.randn(noise.shape, generator=generator)  # the first noise

        def fresh(generator=generator, shape=noise.shape):
            return torch.randn(shape, generator=generator)

        # In k-diffusion's scale: sigma_max times noise, or unit variance in the UNet's scale.
        initial = noise * (math.sqrt(1 + sigmas[0] ** 2) if sampler == "dpmpp_2m" else sigmas[0])
        theirs = formula(gaussian.denoised, initial.double(), sigmas, fresh)
        assert (ours - theirs).abs().max() < 2e-5 * initial.abs().max(), steps
        first = queries[0]
        assert torch.allclose(first.x * math.sqrt(1 + first.sigma**2), initial, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm2", 2), ("dpmpp_2m", 2)],
)
def test_the_flow_is_solved_with_the_methods_order(begin, drive, gaussian, sampler, order):
    """For normal data x - mean shrinks as sqrt(deviation**2 + sigma**2): an exact end to reach."""
    schedule = "uniform" if sampler == "ddim" else "karras"
    errors = []
    for steps in (50, 100, 200):
        latents, queries = drive(
            begin(sampler, schedule, "epsilon", steps)[0], gaussian.model("epsilon")
        )
        sigma, mean, width = queries[0].sigma, gaussian.mean, gaussian.deviation
        x = queries[0].x.double() * math.sqrt(1 + sigma**2)
        last = levels(queries, sampler)[-1]  # from here on one straight step to zero
        x = mean + (x - mean) * math.sqrt((width**2 + last**2) / (width**2 + sigma**2))
        exact = gaussian.denoised(x, last)
        errors.append(float((latents - exact).abs().max() / (exact - mean).abs().max()))
    assert errors[-1] < {1: 0.015, 2: 0.0005}[order]
    assert errors[0] / errors[-1] > {1: 3, 2: 8}[order]  # 4 and 16 were it all asymptotic


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s not in ("lcm", "tcd")])
def test_every_sampler_ends_at_the_data(begin, drive, gaussian, sampler):
    """4096 numbers after 50 steps: mean 0.3, deviation 1.5, whatever noise was added between."""
    for prediction in ("epsilon", "v_prediction"):
        coroutine, _ = begin(sampler, "automatic", prediction, 50, size=32)
        latents, _ = drive(coroutine, gaussian.model(prediction))
        assert abs(float(latents.mean()) - gaussian.mean) < 0.08
        assert abs(float(latents.std()) / gaussian.deviation - 1) < 0.06


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_step_goes_to_the_models_guess(begin, drive, gaussian, sampler):
    """But for what the model's lowest noise level, 0.03, leaves with DDIM, PLMS and DEIS."""
    for schedule in SAMPLERS[sampler].schedules:
        coroutine, _ = begin(sampler, schedule, "v_prediction", 1)
        latents, (query,) = drive(coroutine, gaussian.model("v_prediction"))
        guess = gaussian.denoised(query.x * math.sqrt(1 + query.sigma**2), query.sigma)
        assert (latents - guess).abs().max() < 0.15, schedule
