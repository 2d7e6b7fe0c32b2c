"""Data whose perfect model is known: a mixture of Gaussians, for the real samplers to draw.

The denoiser of such data has a closed form, so a sampler's path can be held against the truth, and
guidance against what its formula promises. convergence.py measures every sampler with
it, the page's chapter on samplers shows it with one number in the place of a picture.

Points are N x D and in k-diffusion's scale, data plus sigma times noise; `seen` has the UNet's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch

from .base import Answer, Query
from .prediction import output_in_sigma_scale

NOISE = {  # Stable Diffusion's; "trailing" so that uniform steps begin at the top
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",
}


@dataclass(frozen=True)
class Mixture:
    """K round Gaussians in D dimensions: weights (K,), means (K, D), deviations (K,)."""

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def parts(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Log of each component's weighted density at x (N, D), data plus sigma times noise:
        (N, K)."""
        variance = self.deviations**2 + sigma**2
        distance = ((x[:, None] - self.means) ** 2).sum(-1)
        size = x.shape[1] / 2 * np.log(2 * math.pi * variance)
        return np.log(self.weights) - size - distance / (2 * variance)

    def shares(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """How likely each component is at x (N, D): (N, K)."""
        log = self.parts(x, sigma)
        likely = np.exp(log - log.max(1, keepdims=True))
        return likely / likely.sum(1, keepdims=True)

    def density(self, x: np.ndarray, sigma: float = 0.0) -> np.ndarray:
        """How dense data plus sigma times noise are at x (N, D): (N,)."""
        return np.exp(self.parts(x, sigma)).sum(1)

    def score(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """The slope of the log density, (N, D)."""
        pulls = (self.means - x[:, None]) / (self.deviations**2 + sigma**2)[:, None]
        return (self.shares(x, sigma)[..., None] * pulls).sum(1)

    def denoised(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """E[data | x], (N, D): what a perfect model believes."""
        keep = self.deviations**2 / (self.deviations**2 + sigma**2)
        guesses = self.means + keep[:, None] * (x[:, None] - self.means)
        return (self.shares(x, sigma)[..., None] * guesses).sum(1)

    def part(self, components: list[int]) -> Mixture:
        """Some of the components alone, as data of their own: a class."""
        weights = self.weights[components]
        return Mixture(weights / weights.sum(), self.means[components], self.deviations[components])

    def below(self, x: np.ndarray) -> np.ndarray:
        """The share of the data, one number each, below x (N,): (N,)."""
        normal = NormalDist().cdf
        far = (x[:, None] - self.means[:, 0]) / self.deviations
        return np.vectorize(normal)(far) @ self.weights

    def answer(self, query: Query, prediction: str = "epsilon") -> Answer:
        """What a perfect model says to x (1, D, h, w), where each pixel is a point."""
        return Answer(_output(query, self.denoised(points(query), query.sigma), prediction))

    def flow(self, x: np.ndarray, sigma: float, end: float) -> np.ndarray:
        """The exact solution of the probability flow ODE from sigma to end."""
        from scipy.integrate import solve_ivp

        def slope(log_sigma, flat):  # d x / d log sigma = x - D
            now = flat.reshape(x.shape)
            return (now - self.denoised(now, math.exp(log_sigma))).ravel()

        span = math.log(sigma), math.log(end)
        solved = solve_ivp(slope, span, x.ravel(), method="DOP853", rtol=1e-11, atol=1e-12)
        return solved.y[:, -1].reshape(x.shape)


@dataclass(frozen=True)
class Guided:
    """Two perfect models under guidance: of all data, and of one class. `scale` 0 hears the class
    not at all, 1 is the class's own model, more goes beyond (arXiv 2207.12598)."""

    whole: Mixture
    chosen: Mixture
    scale: float

    def answer(self, query: Query) -> Answer:
        """As the UNet's two answers are put together in pipeline/denoising/denoiser.py."""
        cond = self.chosen.answer(query).output
        if self.scale == 1:
            return Answer(cond, cond)
        uncond = self.whole.answer(query).output
        return Answer(uncond + self.scale * (cond - uncond), cond, uncond)

    def promised(self, grid: np.ndarray) -> np.ndarray:
        """The density on an even grid (N,) whose score at sigma 0 is the guided one: that of all
        data times (class / all data) ** scale. Guided paths do not end in it, arXiv 2409.13074."""
        x = grid[:, None]
        whole, chosen = (np.logaddexp.reduce(m.parts(x, 0.0), 1) for m in (self.whole, self.chosen))
        log = whole + self.scale * (chosen - whole)
        density = np.exp(log - log.max())
        return density / (density.sum() * (grid[1] - grid[0]))


def _output(query: Query, clean: np.ndarray, prediction: str) -> torch.Tensor:
    """The model output, as `prediction_type` says, that means the clean points (N, D)."""
    output = output_in_sigma_scale(points(query), clean, query.sigma, prediction)
    return torch.from_numpy(output.T.copy()).reshape(query.x.shape).to(query.x.dtype)


def seen(x: torch.Tensor) -> np.ndarray:
    """Latents (1, D, h, w) as points (N, D), in the scale that they have."""
    return x.double().numpy()[0].reshape(x.shape[1], -1).T


def points(query: Query) -> np.ndarray:
    """A query's x as points (N, D) in k-diffusion's scale, data plus sigma times noise."""
    return seen(query.x) * math.sqrt(1 + query.sigma**2)


def drawn(
    sampler: Generator[Query, Answer, torch.Tensor], answer: Callable[[Query], Answer]
) -> tuple[np.ndarray, list[Query]]:
    """Run a sampler; return its points (N, D) and the queries on the way."""
    queries = [next(sampler)]
    while True:
        try:
            queries.append(sampler.send(answer(queries[-1])))
        except StopIteration as end:
            return seen(end.value), queries


def even_noise(count: int) -> torch.Tensor:
    """`count` numbers that are spread as unit noise is, but evenly, rising: (1, 1, 1, count). With
    it a sampler that draws no noise owes its distance to the data to itself, not to luck."""
    normal = NormalDist()
    values = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, count)


def distance(x: np.ndarray, grid: np.ndarray, below: np.ndarray) -> float:
    """How far numbers x (N,) are from a distribution on average: Wasserstein's distance of order 1,
    the area between two cumulative distributions. below (G,): the share of it under each grid (G,),
    an even grid that holds nearly all of both."""
    x = np.sort(x)
    mine = np.searchsorted(x, grid, side="right") / len(x)
    outside = np.abs(x - x.clip(grid[0], grid[-1])).mean()
    return float(np.abs(mine - below).sum() * (grid[1] - grid[0]) + outside)


def luck(count: int, grid: np.ndarray, below: np.ndarray) -> float:
    """The distance to be expected of `count` numbers drawn from the distribution itself."""
    below = below.clip(0, 1)  # rounding may leave 1 and a little
    spread = np.sqrt(2 / math.pi * below * (1 - below) / count)
    return float(spread.sum() * (grid[1] - grid[0]))
