"""A mixture of Gaussians, whose denoiser has a closed form, as data for the real samplers.

So a sampler's path can be compared with the exact solution, and guidance with the density that its
formula aims at. convergence.py measures every sampler with it; the page's chapter on samplers shows
it with one number in the place of a picture.

Points are (N, D) in k-diffusion's scale, data plus sigma times noise; `to_points` keeps the UNet's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from .base import Answer, Query
from .prediction import output_in_sigma_scale

SCHEDULER_CONFIG: dict[str, Any] = {
    # Stable Diffusion's; "trailing" so that uniform steps begin at the top
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
class GaussianMixture:
    """K round Gaussians in D dimensions: weights (K,), means (K, D), deviations (K,)."""

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def log_densities(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Return the log of each component's weighted density at x (N, D): (N, K)."""
        variance = self.deviations**2 + sigma**2
        distance = ((x[:, None] - self.means) ** 2).sum(-1)
        size = x.shape[1] / 2 * np.log(2 * math.pi * variance)
        return np.log(self.weights) - size - distance / (2 * variance)

    def responsibilities(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Return the probability of each component at x (N, D): (N, K)."""
        log = self.log_densities(x, sigma)
        likely = np.exp(log - log.max(1, keepdims=True))
        return likely / likely.sum(1, keepdims=True)

    def density(self, x: np.ndarray, sigma: float = 0.0) -> np.ndarray:
        """Return the density of data plus sigma times noise at x (N, D): (N,)."""
        return np.exp(self.log_densities(x, sigma)).sum(1)

    def score(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Return the gradient of the log density, (N, D)."""
        pulls = (self.means - x[:, None]) / (self.deviations**2 + sigma**2)[:, None]
        return (self.responsibilities(x, sigma)[..., None] * pulls).sum(1)

    def denoised(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Return E[data | x], (N, D): the output of a perfect denoiser."""
        keep = self.deviations**2 / (self.deviations**2 + sigma**2)
        guesses = self.means + keep[:, None] * (x[:, None] - self.means)
        return (self.responsibilities(x, sigma)[..., None] * guesses).sum(1)

    def subset(self, components: list[int]) -> GaussianMixture:
        """Return the mixture of some of the components: a class."""
        weights = self.weights[components]
        return GaussianMixture(
            weights / weights.sum(), self.means[components], self.deviations[components]
        )

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Return the cumulative distribution at x (N,), of data of one dimension: (N,)."""
        normal = NormalDist().cdf
        far = (x[:, None] - self.means[:, 0]) / self.deviations
        return np.vectorize(normal)(far) @ self.weights

    def answer(self, query: Query, prediction: str = "epsilon") -> Answer:
        """Return a perfect model's answer for x (1, D, h, w), where each pixel is a point."""
        return Answer(_output(query, self.denoised(points(query), query.sigma), prediction))

    def flow(self, x: np.ndarray, sigma: float, end: float) -> np.ndarray:
        """Solve the probability flow ODE from sigma to end, to eleven digits."""
        from scipy.integrate import solve_ivp

        def slope(log_sigma, flat):  # d x / d log sigma = x - D
            now = flat.reshape(x.shape)
            return (now - self.denoised(now, math.exp(log_sigma))).ravel()

        span = math.log(sigma), math.log(end)
        solved = solve_ivp(slope, span, x.ravel(), method="DOP853", rtol=1e-11, atol=1e-12)
        return solved.y[:, -1].reshape(x.shape)


@dataclass(frozen=True)
class GuidedMixture:
    """Two perfect models under classifier-free guidance: of all data, and of one class.

    scale: 0 ignores the class, 1 is the class's own model (arXiv 2207.12598)."""

    uncond: GaussianMixture
    cond: GaussianMixture
    scale: float

    def answer(self, query: Query) -> Answer:
        """Combine the two models' outputs, as pipeline/denoising/denoiser.py does."""
        cond = self.cond.answer(query).output
        if self.scale == 1:
            return Answer(cond, cond)
        uncond = self.uncond.answer(query).output
        return Answer(uncond + self.scale * (cond - uncond), cond, uncond)

    def target_density(self, grid: np.ndarray) -> np.ndarray:
        """Return the density on an even grid (N,) whose score at sigma 0 is the guided one: that of
        all data times (class / all data) ** scale. Guided paths end elsewhere (arXiv 2409.13074).
        """
        x = grid[:, None]
        whole, chosen = (
            np.logaddexp.reduce(m.log_densities(x, 0.0), 1) for m in (self.uncond, self.cond)
        )
        log = whole + self.scale * (chosen - whole)
        density = np.exp(log - log.max())
        return density / (density.sum() * (grid[1] - grid[0]))


def _output(query: Query, clean: np.ndarray, prediction: str) -> torch.Tensor:
    """Return the model output that means the clean points (N, D)."""
    output = output_in_sigma_scale(points(query), clean, query.sigma, prediction)
    return torch.from_numpy(output.T.copy()).reshape(query.x.shape).to(query.x.dtype)


def to_points(x: torch.Tensor) -> np.ndarray:
    """Return latents (1, D, h, w) as points (N, D), in the scale that they have."""
    return x.double().numpy()[0].reshape(x.shape[1], -1).T


def points(query: Query) -> np.ndarray:
    """Return a query's x as points (N, D) in k-diffusion's scale."""
    return to_points(query.x) * math.sqrt(1 + query.sigma**2)


def run_sampler(
    sampler: Generator[Query, Answer, torch.Tensor], answer: Callable[[Query], Answer]
) -> tuple[np.ndarray, list[Query]]:
    """Run a sampler; return its points (N, D) and the queries on the way."""
    queries = [next(sampler)]
    while True:
        try:
            queries.append(sampler.send(answer(queries[-1])))
        except StopIteration as end:
            return to_points(end.value), queries


def even_noise(count: int) -> torch.Tensor:
    """Return the quantiles of unit noise at `count` even probabilities, (1, 1, 1, count).

    From it, the distance of a sampler that draws no noise to the data has no sampling error."""
    normal = NormalDist()
    values = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, count)


def distance(x: np.ndarray, grid: np.ndarray, cdf: np.ndarray) -> float:
    """Return Wasserstein's distance of order 1 between numbers x (N,) and a distribution: the area
    between two cumulative distributions. below (G,): the share of it under each grid (G,),
    an even grid that holds nearly all of both."""
    x = np.sort(x)
    mine = np.searchsorted(x, grid, side="right") / len(x)
    outside = np.abs(x - x.clip(grid[0], grid[-1])).mean()
    return float(np.abs(mine - cdf).sum() * (grid[1] - grid[0]) + outside)


def expected_distance(count: int, grid: np.ndarray, cdf: np.ndarray) -> float:
    """Return the expected distance of `count` numbers drawn from the distribution itself."""
    cdf = cdf.clip(0, 1)  # rounding may leave 1 and a little
    spread = np.sqrt(2 / math.pi * cdf * (1 - cdf) / count)
    return float(spread.sum() * (grid[1] - grid[0]))
