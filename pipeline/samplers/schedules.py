"""Formulas for the noise levels of A1111's schedules that diffusers does not have.

Uniform, Karras, Exponential, Beta and SGM Uniform are options of diffusers' schedulers instead:
table.py lists the options, and diffusers_adapter.py sets them.

Each function takes the number of steps n, the noise level of every trained timestep (`trained`,
float64, rising, usually 1000) and the scheduler configuration. It returns the n noise levels at
which the steps begin, falling; the sampler adds the 0 at which the last step ends. The formulas are
those of A1111's sd_schedulers.py, with two differences:

- With a single step every schedule starts at the highest level. A1111's Align Your Steps and DDIM
  start at the lowest.
- Every schedule has n levels and then zero. A1111's KL Optimal ends at the lowest level instead of
  zero, and its DDIM has more than n steps if n does not divide the number of trained timesteps.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .table import Schedule

# NVIDIA's tables, research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html
ALIGN_YOUR_STEPS = {
    "sd1": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


def timestep(sigma: float, trained: np.ndarray) -> float:
    """Return the timestep, possibly a fraction, at which the noise level is `sigma`.

    Interpolated linearly in log sigma, as in k-diffusion. trained: the noise level of every trained
    timestep, rising.
    """
    return float(np.interp(np.log(sigma), np.log(trained), np.arange(len(trained))))


def polyexponential(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return n noise levels by k-diffusion's polyexponential formula with rho 1, as A1111 sets it.

    With rho 1 they equal the exponential schedule: log sigma falls evenly. trained: the noise level
    of every trained timestep, rising. `config` is not used.
    """
    low, high = np.log(trained[[0, -1]])
    return np.exp(low + np.linspace(1, 0, n) * (high - low))


def kl_optimal(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return n noise levels whose arc tangent falls evenly; arXiv 2404.14507, theorem 3.1.

    trained: the noise level of every trained timestep, rising. `config` is not used.
    """
    low, high = np.arctan(trained[[0, -1]])
    return np.tan(high + np.arange(n) / n * (low - high))


def align_your_steps(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return NVIDIA's optimised noise levels, arXiv 2404.14507, interpolated to n levels.

    Interpolated in log sigma. Uses SD XL's table if the scheduler configuration `config` has
    `"align_your_steps": "sdxl"`, else that of SD 1.5. `trained` is not used.
    """
    family = "sdxl" if config.get("align_your_steps") == "sdxl" else "sd1"
    table = np.log(ALIGN_YOUR_STEPS[family])
    return np.exp(np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(table)), table))


def simple(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return n noise levels for A1111's schedule "Simple", the highest first.

    They are those of n evenly spaced timesteps from the last trained one down, each a whole number.
    trained: the noise level of every trained timestep, rising. `config` is not used.
    """
    return trained[-1 - (np.arange(n) * (len(trained) / n)).astype(int)]


def normal(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return the noise levels at n evenly spaced timesteps, from the last trained one to the first.

    Both ends are included. Timesteps may be fractions; their levels are interpolated in log sigma.
    This is k-diffusion's get_sigmas. trained: the noise level of every trained timestep, rising.
    `config` is not used.
    """
    timesteps = np.linspace(len(trained) - 1, 0, n)
    return np.exp(np.interp(timesteps, np.arange(len(trained)), np.log(trained)))


def ddim(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return falling noise levels at the timesteps 1, 1 + k, ..., 1 + (n - 1) k; k = 1000 // n.

    As in the code of the DDIM paper, arXiv 2010.02502. trained: the noise level of every trained
    timestep (usually 1000), rising. `config` is not used.
    """
    stride = len(trained) // n
    first = min(1, len(trained) - 1 - (n - 1) * stride)  # 0 where every timestep is a step
    return trained[(first + np.arange(n) * stride)[::-1]]


def levels(
    schedule: Schedule, n: int, trained: np.ndarray, config: Mapping[str, Any]
) -> np.ndarray:
    """Return n falling noise levels (n,) of a schedule that this file computes, not diffusers.

    schedule: its `formula` names the function that computes them. trained: the noise level of every
    trained timestep, rising. config: the scheduler configuration. If n is 1, the level is the
    highest.
    """
    if n == 1:
        return trained[-1:]
    module = importlib.import_module(f"{__package__}.{schedule.file}")
    return getattr(module, schedule.formula or "")(n, trained, config)
