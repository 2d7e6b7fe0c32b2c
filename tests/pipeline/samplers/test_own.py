"""The samplers that are our own against k-diffusion's, A1111's and the papers' formulas.

They are written out here in k-diffusion's scale x = x0 + sigma eps; `noise()` is the next draw.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.samplers import Answer


def karras(n, low, high, rho=7):
    ramp = np.linspace(0, 1, n)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def curved(x, sigma):
    """A denoiser that is not linear."""
    return torch.tanh(x / (1 + sigma)) + 0.1 * sigma


def model(prediction):
    """`curved` as a model that answers a Query."""

    def answer(query):
        alpha = 1 / math.sqrt(1 + query.sigma**2)
        x0 = curved(query.x / alpha, query.sigma)
        eps = (query.x / alpha - x0) / query.sigma
        return Answer(eps if prediction == "epsilon" else alpha * (eps - query.sigma * x0))

    return answer


def dpmpp_2s_a(D, x, sigmas, noise):
    for s, s_next in pairwise(sigmas):
        denoised = D(x, s)
        up = min(s_next, math.sqrt(s_next**2 * (s**2 - s_next**2) / s**2))
        down = math.sqrt(s_next**2 - up**2)
        if down == 0:
            x = x + (x - denoised) / s * (down - s)
        else:
            t, t_next = -math.log(s), -math.log(down)
            h = t_next - t
            middle = t + h / 2
            x_2 = math.exp(-middle) / math.exp(-t) * x - math.expm1(-h / 2) * denoised
            denoised_2 = D(x_2, math.exp(-middle))
            x = math.exp(-t_next) / math.exp(-t) * x - math.expm1(-h) * denoised_2
        if s_next > 0:
            x = x + noise() * up
    return x


def dpmpp_3m_sde(D, x, sigmas, noise):
    h_1 = h_2 = denoised_1 = denoised_2 = None
    for s, s_next in pairwise(sigmas):
        denoised = D(x, s)
        if s_next == 0:
            return denoised
        h = math.log(s) - math.log(s_next)
        h_eta = h * 2
        x = math.exp(-h_eta) * x + -math.expm1(-h_eta) * denoised
        phi_2 = math.expm1(-h_eta) / h_eta + 1
        phi_3 = phi_2 / h_eta - 0.5
        if h_2 is not None:
            r0, r1 = h_1 / h, h_2 / h
            d1_0 = (denoised - denoised_1) / r0
            d1_1 = (denoised_1 - denoised_2) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            x = x + phi_2 * d1 - phi_3 * d2
        elif h_1 is not None:
            x = x + phi_2 * (denoised - denoised_1) / (h_1 / h)
        x = x + noise() * s_next * math.sqrt(-math.expm1(-2 * h))
        denoised_1, denoised_2, h_1, h_2 = denoised, denoised_1, h, h_1
    return x


def heunpp2(D, x, sigmas, noise):
    for i in range(len(sigmas) - 1):
        s, s_1 = sigmas[i], sigmas[i + 1]
        d, dt = (x - D(x, s)) / s, s_1 - s
        if s_1 == 0:
            x = x + d * dt
            continue
        x_2 = x + d * dt
        d_2 = (x_2 - D(x_2, s_1)) / s_1
        s_2 = sigmas[i + 2]
        if s_2 == 0:
            w_2 = s_1 / (2 * sigmas[0])
            x = x + (d * (1 - w_2) + d_2 * w_2) * dt
        else:
            x_3 = x_2 + d_2 * (s_2 - s_1)
            d_3 = (x_3 - D(x_3, s_2)) / s_2
            w_2, w_3 = s_1 / (3 * sigmas[0]), s_2 / (3 * sigmas[0])
            x = x + ((1 - w_2 - w_3) * d + w_2 * d_2 + w_3 * d_3) * dt
    return x


def restart(D, x, sigmas, noise):
    """A1111's, which makes its own Karras levels between the first and the last."""
    steps = len(sigmas) - 1
    plan = list(pairwise(sigmas))
    if steps >= 20:
        length, times = (steps // 4, 2) if steps >= 36 else (9, 1)
        sigmas = [*karras(steps - length * times, sigmas[-2], sigmas[0]), 0.0]
        low = int(np.argmin(np.abs(np.array(sigmas) - 0.1)))
        high = int(np.argmin(np.abs(np.array(sigmas) - 2)))
        again = list(pairwise(karras(length + 1, sigmas[low], sigmas[high])))
        plan = []
        for i, pair in enumerate(pairwise(sigmas)):
            plan += [pair] + (again * times if i + 1 == low else [])
    assert len(plan) == steps
    last = plan[0][0]
    for s, s_next in plan:
        if last < s:
            x = x + noise() * math.sqrt(s**2 - last**2)
        d = (x - D(x, s)) / s
        x_2 = x + d * (s_next - s)
        if s_next > 0:
            d = (d + (x_2 - D(x_2, s_next)) / s_next) / 2
        x, last = x + d * (s_next - s), s_next
    return x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("formula", [dpmpp_2s_a, dpmpp_3m_sde, heunpp2, restart])
def test_they_follow_k_diffusion(begin, drive, formula, prediction):
    low, high = 0.029167, 14.614647
    for steps in (1, 2, 3, 12, 20, 41):
        coroutine, noise = begin(formula.__name__, "karras", prediction, steps, seed=11)
        ours, queries = drive(coroutine, model(prediction))
        generator = torch.Generator().manual_seed(11)
        torch.randn(noise.shape, generator=generator)  # the first noise

        def fresh(generator=generator, shape=noise.shape):
            return torch.randn(shape, generator=generator)

        high = queries[0].sigma
        first = noise.double() * high
        theirs = formula(curved, first, [*karras(steps, low, high), 0.0], fresh)
        assert (ours - theirs).abs().max() < 2e-5 * first.abs().max(), steps


def test_restart_below_twenty_steps_is_heun(begin, drive):
    for steps in (5, 19):
        ours, _ = drive(begin("restart", "karras", "v_prediction", steps)[0], model("v_prediction"))
        heun, _ = drive(begin("heun", "karras", "v_prediction", steps)[0], model("v_prediction"))
        assert (ours - heun).abs().max() < 1e-5


@pytest.mark.parametrize("schedule", ["uniform", "simple", "beta", "align_your_steps"])
def test_restart_keeps_the_schedule_and_the_count(begin, drive, schedule):
    """Its way down has the chosen schedule's levels, fewer of them; then up to about 2 again."""
    _, queries = drive(begin("restart", schedule, "v_prediction", 24)[0], model("v_prediction"))
    first = {q.step: q.sigma for q in reversed(queries)}
    found = [first[step] for step in range(24)]
    ups = [i for i in range(1, 24) if found[i] > found[i - 1]]
    assert len(ups) == 1
    way_down = found[: ups[0]] + found[ups[0] + 9 :]
    _, euler = drive(begin("euler", schedule, "v_prediction", 15)[0], model("v_prediction"))
    assert way_down == [q.sigma for q in euler]


def guided(query):
    """A model with guidance 7: unconditional, conditional and guided output."""
    uncond = torch.tanh(query.x + 0.3)
    cond = torch.tanh(query.x - 0.2)
    return Answer(uncond + 7 * (cond - uncond), cond, uncond)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim_cfgpp_follows_the_paper(begin, drive, prediction):
    """arXiv 2406.08070, algorithm 2, with lambda = 7 / 12.5 as A1111 scales it."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, dim=0)
    coroutine, noise = begin("ddim_cfgpp", "sgm_uniform", prediction, 10)
    ours, queries = drive(coroutine, guided)
    x = noise.double()
    for t in range(999, 0, -100):
        a, a_next = abar[t], abar[t - 100] if t >= 100 else abar[0]
        answer = guided(type(queries[0])(x, torch.tensor(t), 0, 0.0))
        mixed = answer.uncond + 7 / 12.5 * (answer.cond - answer.uncond)
        if prediction == "epsilon":
            x0, eps = (x - (1 - a).sqrt() * mixed) / a.sqrt(), answer.uncond
        else:
            x0 = a.sqrt() * x - (1 - a).sqrt() * mixed
            eps = a.sqrt() * answer.uncond + (1 - a).sqrt() * x
        x = a_next.sqrt() * x0 + (1 - a_next).sqrt() * eps
    assert (ours - x).abs().max() < 1e-4 * x.abs().max()


def test_ddim_cfgpp_without_guidance_is_ddim(begin, drive):
    for prediction in ("epsilon", "v_prediction"):
        ours, _ = drive(begin("ddim_cfgpp", "uniform", prediction, 7)[0], model(prediction))
        ddim, _ = drive(begin("ddim", "uniform", prediction, 7)[0], model(prediction))
        assert torch.equal(ours, ddim)


def test_plms_follows_the_paper_with_velocities_too(begin, drive):
    """arXiv 2202.09778: Adams-Bashforth over noise, whatever the model predicts."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, dim=0)

    def eps(x, t):
        sigma = float(((1 - abar[t]) / abar[t]).sqrt())
        k = x / abar[t].sqrt()
        return (k - curved(k, sigma)) / sigma

    def move(x, e, t, t_next):
        a, b = abar[t], abar[max(t_next, 0)]
        return b.sqrt() * (x - (1 - a).sqrt() * e) / a.sqrt() + (1 - b).sqrt() * e

    coroutine, noise = begin("plms", "sgm_uniform", "v_prediction", 10)
    ours, _ = drive(coroutine, model("v_prediction"))
    x, past = noise.double(), []
    for t in range(999, 0, -100):
        past = [eps(x, t), *past][:4]
        if len(past) == 1:
            e = (past[0] + eps(move(x, past[0], t, t - 100), t - 100)) / 2
        else:
            weights = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12)}
            weights = weights.get(len(past), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
            e = sum(w * p for w, p in zip(weights, past, strict=True))
        x = move(x, e, t, t - 100)
    assert (ours - x).abs().max() < 1e-4 * x.abs().max()


def test_diffusers_third_order_sde_still_departs():
    """Its weight of the second difference does not vanish with the step; the SDE's does."""
    import diffusers

    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", solver_order=3
    )
    scheduler.set_timesteps(4)
    scheduler.sigmas = torch.tensor([1.0, 0.999, 0.998, 0.997, 0.996])
    scheduler._step_index = 2
    outputs = [torch.full((1,), value) for value in (1.0, 0.0, 0.0)]  # a second difference of 1
    nothing = torch.zeros(1)
    found = scheduler.multistep_dpm_solver_third_order_update(
        outputs, sample=nothing, noise=nothing
    )
    assert abs(float(found)) > 0.3  # of the order of the step, 0.001, were it right
