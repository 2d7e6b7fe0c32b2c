"""Noise levels by formula: A1111's schedules that diffusers does not have.

Uniform, Karras, Exponential, Beta and SGM Uniform are options of diffusers' schedulers instead; the
row in table.py names the option, and diffusers_adapter.py sets it.

Each function takes the number of steps n, the noise levels `trained` (float64, one per trained
timestep, rising) and the scheduler configuration, and returns n falling levels; the last step, to
zero, is the sampler's. The formulas are those of A1111's sd_schedulers.py, with two differences:

- One step starts at the highest level; Align Your Steps and DDIM would start at the lowest there.
- Every schedule has n levels and then zero. A1111's KL Optimal stops at the lowest level instead of
  zero, and its DDIM takes a step or more beyond n where n does not divide the trained timesteps.
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
    """Return the timestep of a noise level, interpolated in log sigma (k-diffusion)."""
    return float(np.interp(np.log(sigma), np.log(trained), np.arange(len(trained))))


def polyexponential(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return k-diffusion's with A1111's rho of 1, which is the exponential schedule."""
    low, high = np.log(trained[[0, -1]])
    return np.exp(low + np.linspace(1, 0, n) * (high - low))


def kl_optimal(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return even steps in the arc tangent of sigma; arXiv 2404.14507, theorem 3.1."""
    low, high = np.arctan(trained[[0, -1]])
    return np.tan(high + np.arange(n) / n * (low - high))


def align_your_steps(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return NVIDIA's optimised levels, arXiv 2404.14507, interpolated in log sigma.

    SD XL's table if the configuration says `"align_your_steps": "sdxl"`, else SD 1.5's.
    """
    family = "sdxl" if config.get("align_your_steps") == "sdxl" else "sd1"
    table = np.log(ALIGN_YOUR_STEPS[family])
    return np.exp(np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(table)), table))


def simple(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return every (1000 / n)th level from the top, at timesteps rounded down."""
    return trained[-1 - (np.arange(n) * (len(trained) / n)).astype(int)]


def normal(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return even timesteps from the last to the first (k-diffusion's get_sigmas)."""
    timesteps = np.linspace(len(trained) - 1, 0, n)
    return np.exp(np.interp(timesteps, np.arange(len(trained)), np.log(trained)))


def ddim(n: int, trained: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return timesteps 1, 1 + k, 1 + 2 k, ... with k = 1000 // n, as the DDIM paper's code."""
    stride = len(trained) // n
    first = min(1, len(trained) - 1 - (n - 1) * stride)  # 0 where every timestep is a step
    return trained[(first + np.arange(n) * stride)[::-1]]


def levels(
    schedule: Schedule, n: int, trained: np.ndarray, config: Mapping[str, Any]
) -> np.ndarray:
    """Return the n falling noise levels of a row of SCHEDULES that has a formula."""
    if n == 1:
        return trained[-1:]
    module = importlib.import_module(f"{__package__}.{schedule.file}")
    return getattr(module, schedule.formula or "")(n, trained, config)
