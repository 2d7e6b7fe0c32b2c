"""python -m pipeline.samplers.convergence [FOLDER]: measure every sampler and write samplers.md.

In place of a UNet it uses the exact denoiser of a mixture of Gaussians, which has a closed form. So
a deterministic sampler can be compared with the exact solution of its ODE, and a sampler that adds
noise with the exact moments of the data. The samplers' tests assert the same measurements.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import SAMPLERS, SCHEDULES, Query, make_sampler
from .gaussian_mixture import SCHEDULER_CONFIG as CONFIG
from .gaussian_mixture import GaussianMixture, points, run_sampler

MIXTURE = GaussianMixture(
    np.array([0.5, 0.3, 0.2]),
    np.array([[1.0, 0.5], [-1.0, 0.8], [0.2, -1.2]]),
    np.array([0.6, 0.5, 0.7]),
)


def draw(
    sampler: str, schedule: str, steps: int, size: int, seed: int = 0, **changes: Any
) -> tuple[np.ndarray, list[Query]]:
    """Draw points of a known distribution with a sampler and a perfect model, to measure it.

    The distribution is MIXTURE, three Gaussians in the plane; its exact denoiser takes the place of
    the UNet. Returns N = size * size points (N, 2), and the Query of every model call in order.

    sampler, schedule: keys of SAMPLERS and SCHEDULES, such as "euler" and "karras". changes: items
    that replace those of the default scheduler configuration, CONFIG.
    """
    config = CONFIG | changes
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 2, size, size, generator=generator).double()
    coroutine = make_sampler(sampler, schedule, config, noise, steps, generator, seed)
    return run_sampler(coroutine, lambda query: MIXTURE.answer(query, config["prediction_type"]))


# A timestep that is visited for every step count in Convergence.counts, by samplers that know only
# the trained timesteps.
COMMON = 99
ORDERS = {key: row.convergence for key, row in SAMPLERS.items() if row.convergence}
NOISY = {key: row.moment_steps for key, row in SAMPLERS.items() if row.moment_steps}


def errors(sampler: str, counts: tuple[int, ...] = ()) -> list[float]:
    """Measure a deterministic sampler's error against the exact ODE solution, per number of steps.

    Returns one error for each item of `counts`: the root mean square distance of 64 points to the
    exact solution of the probability flow ODE, for a mixture of Gaussians whose denoiser is known
    exactly. It is measured at a noise level that is visited for every number of steps: the lowest
    of the schedule, or timestep 99 for samplers that know only the trained timesteps. The last
    step, to zero noise, is left out: every sampler takes the denoiser's output there.

    sampler: a key of SAMPLERS. counts: numbers of steps; () means those that its `convergence`
    lists.
    """
    row = ORDERS[sampler]
    rms = []
    for steps in counts or row.counts:
        _, queries = draw(sampler, row.schedule, steps, 8)
        if row.schedule == "uniform":
            last = [q for q in queries if int(q.t) == COMMON][-1]
        else:
            last = next(q for q in queries if q.step == steps - 1)
        exact = MIXTURE.flow(points(queries[0]), queries[0].sigma, last.sigma)
        rms.append(float(np.sqrt(((points(last) - exact) ** 2).mean())))
    return rms


def slope(counts: Sequence[int], found: Sequence[float]) -> float:
    """Return the order of convergence: p of error = c * steps ** -p, fitted by least squares.

    counts: numbers of steps. found: the error for each of them.
    """
    return -float(np.polyfit(np.log(counts), np.log(found), 1)[0])


def truth() -> dict[str, np.ndarray]:
    """Return the exact moments of MIXTURE, the distribution that samplers are measured with.

    They are {"mean": (2,), "covariance": (3,) for xx, xy and yy, "weights": (K,) of the K
    Gaussians}.
    """
    m = MIXTURE
    mean = m.weights @ m.means
    spread = np.einsum("k,ki,kj->ij", m.weights, m.means - mean, m.means - mean)
    spread = spread + (m.weights @ m.deviations**2) * np.eye(2)
    return {"mean": mean, "covariance": spread[[0, 0, 1], [0, 1, 1]], "weights": m.weights}


def moments(x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Estimate the moments of MIXTURE, the samplers' test distribution, from samples x (N, 2).

    Returns {"mean": ..., "covariance": ..., "weights": ...}. Each value is a pair of arrays, the
    estimates and their standard errors, of length 2 for the mean, 3 (xx, xy, yy) for the covariance
    and K for the weights of the K Gaussians.
    """
    d = x - x.mean(0)
    samples = {
        "mean": x,
        "covariance": np.stack([d[:, 0] ** 2, d[:, 0] * d[:, 1], d[:, 1] ** 2], 1),
        "weights": MIXTURE.responsibilities(x, 0.0),
    }
    return {k: (s.mean(0), s.std(0) / math.sqrt(len(s))) for k, s in samples.items()}


def deviations(x: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return how far the moments of a sampler's points x (N, 2) are from the exact ones of MIXTURE.

    MIXTURE is the distribution that samplers are tested with. Returns {"mean": ..., "covariance":
    ..., "weights": ...}. Each value is a pair: the largest absolute deviation of one of its
    numbers, and the largest deviation in units of the estimate's standard error.
    """
    true = truth()
    off = {k: (np.abs(m - true[k]), e) for k, (m, e) in moments(x).items()}
    return {k: (float(d.max()), float((d / e).max())) for k, (d, e) in off.items()}


def write(folder: Path) -> None:
    """Measure all samplers and schedules; write the report samplers.md and its two plots (PNG).

    Measured are noise levels, orders of convergence to the exact ODE solution, and moments of the
    drawn points. folder: where the files go; it must exist.
    """
    found = {sampler: errors(sampler) for sampler in ORDERS}
    text = [
        "# Samplers and noise schedules",
        "",
        "Written by `python -m pipeline.samplers.convergence`; every number is measured by it.",
        "",
        *_samplers(),
        *_schedules(folder),
        *_convergence(folder, found),
        *_moments(),
        NOTES,
    ]
    (folder / "samplers.md").write_text("\n".join(text), encoding="utf-8")


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _samplers() -> list[str]:
    rows = []
    for key, s in SAMPLERS.items():
        origin = (
            f"diffusers' {s.scheduler}" if s.file == "diffusers_adapter" else f"own: {s.file}.py"
        )
        automatic = SCHEDULES[s.automatic].label
        takes = "all" if len(s.schedules) == len(SCHEDULES) else ", ".join(s.schedules[1:])
        rows.append([s.label, f"`{key}`", s.note, str(s.calls), automatic, takes, origin])
    head = ["name", "key", "good for", "calls a step", "Automatic means", "takes", "code"]
    return ["## Samplers", "", *_table(head, rows)]


def _schedules(folder: Path) -> list[str]:
    names = [key for key in SCHEDULES if key != "automatic"]
    rows, lines = [], {}
    for key in names:
        levels = {n: [q.sigma for q in draw("euler", key, n, 1)[1]] for n in (10, 20)}
        rows.append([SCHEDULES[key].label, SCHEDULES[key].note, *[f"{x:.3f}" for x in levels[10]]])
        lines[SCHEDULES[key].label] = (range(1, 21), levels[20])
    _plot(folder / "samplers-schedules.png", lines, "step of 20", "noise level sigma", 0.8)
    return [
        "## Noise schedules",
        "",
        "The noise levels of 10 steps with Stable Diffusion's noise; zero follows. Uniform is what "
        'the checkpoint\'s own configuration says, here `"timestep_spacing": "trailing"`.',
        "",
        *_table(["name", "good for", *map(str, range(1, 11))], rows),
        "![Noise levels of 20 steps](samplers-schedules.png)",
        "",
    ]


def _convergence(folder: Path, found: dict[str, list[float]]) -> list[str]:
    rows, lines = [], {}
    for key, row in ORDERS.items():
        label, ends = SAMPLERS[key].label, f"{found[key][0]:.1e} to {found[key][-1]:.1e}"
        steps = f"{row.counts[0]} to {row.counts[-1]}"
        order = f"{slope(row.counts, found[key]):.2f}"
        rows.append([label, str(row.order), order, steps, ends, row.source])
        lines[label] = (row.counts, found[key])
    _plot(folder / "samplers-order.png", lines, "steps", "error", 1, logx=True)
    return [
        "## Deterministic samplers converge to the exact solution",
        "",
        "The model is the exact denoiser of a mixture of three Gaussians in the plane; the truth "
        "is its probability flow ODE, solved to eleven digits. The error is the root mean square "
        "over 64 trajectories at the lowest noise level of the Exponential schedule, or at "
        f"timestep {COMMON} for samplers that are bound to even timesteps. The last step, from "
        "there to zero, is left out: it is the denoiser's answer for every sampler, and one step "
        "of any method. The order is the slope of log error over log steps, by least squares.",
        "",
        *_table(["sampler", "order", "measured", "steps", "error", "why"], rows),
        "![Error over steps](samplers-order.png)",
        "",
        "LMS has order 4 once it remembers four slopes. Its first step is Euler's and leaves an "
        "error of order 2 which is small, because almost nothing bends where it is taken; in the "
        "range that anyone uses the measured order lies between the two.",
        "",
    ]


def _moments() -> list[str]:
    rows, size = [], 96
    for key, steps in NOISY.items():
        points_, _ = draw(key, "automatic", steps, size)
        far = deviations(points_).values()
        cells = [f"{distance:.4f} ({errors_:.1f})" for distance, errors_ in far]
        rows.append([SAMPLERS[key].label, str(steps), *cells])
    true = {k: ", ".join(f"{x:.3f}" for x in v) for k, v in truth().items()}
    return [
        "## Samplers that draw noise reproduce the moments",
        "",
        f"{size * size} points of the same mixture with the schedule that Automatic means. The "
        f"truth: mean {true['mean']}; covariance xx, xy, yy {true['covariance']}; weights of the "
        f"three components {true['weights']}. The largest distance to it, and in brackets how many "
        "standard errors of so many points that is.",
        "",
        *_table(["sampler", "steps", "mean", "covariance", "weights"], rows),
        "LCM and TCD are not listed: they are made for distilled models, and their long jumps do "
        "not become exact with more steps.",
        "",
    ]


def _plot(path: Path, lines: dict, across: str, up: str, width: float, logx: bool = False) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=100)
    marks = "osv^D<>PX*hd"
    for i, (label, (x, y)) in enumerate(lines.items()):
        colour = pyplot.colormaps["tab20"](i / 20 if i < 20 else 0)
        axes.plot(x, y, marker=marks[i % len(marks)], ms=4, lw=width, color=colour, label=label)
    axes.set(xlabel=across, ylabel=up, yscale="log", xscale="log" if logx else "linear")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


NOTES = """## What is particular

- **DDIM CFG++** takes the clean picture from the guided answer and goes on with the unconditional
  one (arXiv 2406.08070). The paper's scale lies between 0 and 1; as in A1111 the usual scale is
  divided by 12.5, so cfg 7 means 0.56. With cfg 1 there is no unconditional answer: it is DDIM.
- **HeunPP2** calls the model three times a step, twice at the last but one and once at the last.
  It weighs the slopes ahead by their noise level, so it is smooth but of first order.
- **Restart** takes its restarts out of the steps asked for, as A1111 does: none below 20 steps,
  9 steps once from 20 on, twice a quarter of the steps from 36 on, from sigma 2 to sigma 0.1. A1111
  always uses Karras for it; here the way down keeps the schedule chosen, and only the restarts are
  Karras.
- **PLMS** is given the noise that a velocity means, as in A1111. diffusers' class would mix the
  velocities of several timesteps, and be of first order with a model that predicts v.
- **DPM++ 3M SDE** is k-diffusion's. diffusers' `solver_order=3` weighs the second difference by -1
  too much, a weight that does not vanish with the step.
- **DPM2, DPM2 a, DPM++ 3M SDE** use every noise level. A1111 leaves out the last but one for them.
- **Euler a** takes every schedule; diffusers' class knows two, and there the latents are its own.
- **TCD** takes the 0.3 of its class for gamma, the share of noise put back at every step.
- **Polyexponential** has A1111's rho of 1, which makes it Exponential.
- **KL Optimal** stops at the model's lowest noise level in A1111; here it goes on to zero.
- **DDIM** (the schedule) has as many levels as steps; A1111's list is longer than asked for where
  the steps do not divide 1000.
- **Align Your Steps** has one table for SD 1.x and one for SD XL, which a scheduler configuration
  asks for by `"align_your_steps": "sdxl"`. A single step starts at the highest level.
- **Zero terminal SNR** (`rescale_betas_zero_snr`, arXiv 2305.08891) works with every sampler. The
  last timestep counts as abar = 2**-24, sigma = 4096, so nothing is infinite. The samplers whose
  diffusers class does not know the key take DDIM's step away from it, which is exact there; PLMS,
  Heun and their like would multiply the model's error by a hundred. It is for models that predict
  v, with Uniform under `"timestep_spacing": "trailing"` or SGM Uniform; schedules in sigma spend
  many of their steps above the level where a picture begins.
- **Image to image** takes the last int(strength * steps) + 1 steps, as A1111 does, from the picture
  under the noise of the first of them, with an empty memory. Restart counts the steps left. The
  tree of DPM++ SDE is that of the whole way.
- **DDIM, DDIM CFG++, PLMS, TCD and DEIS** do not end at zero noise: DEIS ends at the last level of
  the schedule, which with KL Optimal and Simple shows, the others at the model's lowest; the first
  three at zero if the configuration has `"set_alpha_to_one": true`. So the part that inpainting
  keeps holds a trace of noise until it is pasted back.
- **Randomness** comes from one generator on the CPU, and for DPM++ SDE from a Brownian tree grown
  there from the seed, whatever the device.
"""


def main() -> None:
    """Run `python -m pipeline.samplers.convergence [FOLDER]`: measure all samplers, write a report.

    The report samplers.md and its plots are written into FOLDER, by default docs.
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.samplers.convergence")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"))
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
