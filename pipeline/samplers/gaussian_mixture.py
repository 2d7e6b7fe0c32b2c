"""A mixture of Gaussians as data distribution: a perfect denoiser for it has a closed form.

With that denoiser in place of a UNet, a sampler's result can be compared with the exact solution,
and classifier-free guidance with the density that its formula aims at. convergence.py measures
every sampler this way; the web page's chapter on samplers shows it with data of one dimension.

Points are arrays (N, D) in k-diffusion's scale, data plus sigma times noise. The latents
(1, D, h, w) of a sampler hold one point per pixel, N = h * w.
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
    """A mixture of K isotropic Gaussians in D dimensions, whose perfect denoiser has a closed form.

    Tests and demonstrations of samplers use it in place of data and UNet. weights (K,) add up to 1;
    means (K, D); deviations (K,) are standard deviations. In the methods x (N, D) are points, and
    sigma is the standard deviation of the noise that was added to them.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def log_densities(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Return log(weight * density) at the noisy points x (N, D) for each component, (N, K).

        sigma: standard deviation of the noise, which widens each Gaussian.
        """
        variance = self.deviations**2 + sigma**2
        distance = ((x[:, None] - self.means) ** 2).sum(-1)
        size = x.shape[1] / 2 * np.log(2 * math.pi * variance)
        return np.log(self.weights) - size - distance / (2 * variance)

    def responsibilities(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Return the probability (N, K) that each component generated the noisy points x (N, D)."""
        log = self.log_densities(x, sigma)
        likely = np.exp(log - log.max(1, keepdims=True))
        return likely / likely.sum(1, keepdims=True)

    def density(self, x: np.ndarray, sigma: float = 0.0) -> np.ndarray:
        """Return the probability density (N,) of data plus sigma times noise at x (N, D)."""
        return np.exp(self.log_densities(x, sigma)).sum(1)

    def score(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Return the score (N, D) at the noisy points x (N, D): the gradient of log `density`.

        sigma: standard deviation of the noise.
        """
        pulls = (self.means - x[:, None]) / (self.deviations**2 + sigma**2)[:, None]
        return (self.responsibilities(x, sigma)[..., None] * pulls).sum(1)

    def denoised(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Return E[data | x] (N, D) for noisy points x (N, D): a perfect denoiser's output."""
        keep = self.deviations**2 / (self.deviations**2 + sigma**2)
        guesses = self.means + keep[:, None] * (x[:, None] - self.means)
        return (self.responsibilities(x, sigma)[..., None] * guesses).sum(1)

    def subset(self, components: list[int]) -> GaussianMixture:
        """Return the mixture of the components with these indices, weights scaled to sum 1."""
        weights = self.weights[components]
        return GaussianMixture(
            weights / weights.sum(), self.means[components], self.deviations[components]
        )

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Return the cumulative distribution function (N,) at x (N,). Only for D = 1."""
        normal = NormalDist().cdf
        z = (x[:, None] - self.means[:, 0]) / self.deviations
        return np.vectorize(normal)(z) @ self.weights

    def answer(self, query: Query, prediction: str = "epsilon") -> Answer:
        """Answer a sampler's Query as a perfect UNet would: predict the noise or the velocity.

        query.x is (1, D, h, w); each pixel is one point in D dimensions. prediction: "epsilon" or
        "v_prediction".
        """
        return Answer(_output(query, self.denoised(points(query), query.sigma), prediction))

    def flow(self, x: np.ndarray, sigma: float, end: float) -> np.ndarray:
        """Solve the probability flow ODE from noise level `sigma` to `end`, to eleven digits.

        x: points (N, D) at noise level `sigma`; returns the points (N, D) at noise level `end`.
        """
        from scipy.integrate import solve_ivp

        def slope(log_sigma, flat):  # d x / d log sigma = x - D
            now = flat.reshape(x.shape)
            return (now - self.denoised(now, math.exp(log_sigma))).ravel()

        span = math.log(sigma), math.log(end)
        solved = solve_ivp(slope, span, x.ravel(), method="DOP853", rtol=1e-11, atol=1e-12)
        return solved.y[:, -1].reshape(x.shape)


@dataclass(frozen=True)
class GuidedMixture:
    """A perfect model with classifier-free guidance (arXiv 2207.12598), to study samplers with.

    Its two models are the exact denoisers of two mixtures of Gaussians. uncond: the distribution of
    all data. cond: the distribution of one class. scale: the guidance scale; 0 ignores the class, 1
    uses the model of the class alone.
    """

    uncond: GaussianMixture
    cond: GaussianMixture
    scale: float

    def answer(self, query: Query) -> Answer:
        """Answer a sampler's Query with the guided noise, uncond + scale * (cond - uncond).

        `cond` and `uncond` of the Answer are the noise that the two models predict; `uncond` is
        None at scale 1.
        """
        cond = self.cond.answer(query).output
        if self.scale == 1:
            return Answer(cond, cond)
        uncond = self.uncond.answer(query).output
        return Answer(uncond + self.scale * (cond - uncond), cond, uncond)

    def target_density(self, grid: np.ndarray) -> np.ndarray:
        """Return the density (N,) whose score is the guided score at sigma 0, for D = 1.

        It is proportional to p(x) * (p(x | class) / p(x)) ** scale. Guided sampling does not end
        exactly there (arXiv 2409.13074). grid: evenly spaced x (N,) that cover the distribution.
        """
        x = grid[:, None]
        log_uncond, log_cond = (
            np.logaddexp.reduce(m.log_densities(x, 0.0), 1) for m in (self.uncond, self.cond)
        )
        log = log_uncond + self.scale * (log_cond - log_uncond)
        density = np.exp(log - log.max())
        return density / (density.sum() * (grid[1] - grid[0]))


def _output(query: Query, clean: np.ndarray, prediction: str) -> torch.Tensor:
    """Return the model output, shaped like query.x, that predicts the clean points (N, D).

    It turns a perfect denoiser's x0 into what a UNet would return. prediction: "epsilon" or
    "v_prediction", the kind of output.
    """
    output = output_in_sigma_scale(points(query), clean, query.sigma, prediction)
    return torch.from_numpy(output.T.copy()).reshape(query.x.shape).to(query.x.dtype)


def to_points(x: torch.Tensor) -> np.ndarray:
    """Reshape latents (1, D, h, w) to points (N, D) with N = h * w, without rescaling; float64."""
    return x.double().numpy()[0].reshape(x.shape[1], -1).T


def points(query: Query) -> np.ndarray:
    """Return a Query's latents as points (N, D) in k-diffusion's scale, data + sigma * noise.

    query.x (1, D, h, w) is variance preserving; each of its N = h * w pixels is one point.
    """
    return to_points(query.x) * math.sqrt(1 + query.sigma**2)


def run_sampler(
    sampler: Generator[Query, Answer, torch.Tensor], answer: Callable[[Query], Answer]
) -> tuple[np.ndarray, list[Query]]:
    """Run a sampler to its end, with the function `answer` in place of the UNet.

    sampler: a generator as `make_sampler` returns it. Returns the final points (N, D), one for each
    pixel of the final latents (1, D, h, w), and the Query of every model call in order.
    """
    queries = [next(sampler)]
    while True:
        try:
            queries.append(sampler.send(answer(queries[-1])))
        except StopIteration as end:
            return to_points(end.value), queries


def even_noise(count: int) -> torch.Tensor:
    """Return the normal distribution's quantiles at (i + 0.5) / count, as latents (1, 1, 1, count).

    Used as the first noise of a deterministic sampler, they cover the distribution evenly, so the
    result has no random sampling error.
    """
    normal = NormalDist()
    values = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, count)


def distance(x: np.ndarray, grid: np.ndarray, cdf: np.ndarray) -> float:
    """Return the 1-Wasserstein distance between samples x (N,) and a distribution.

    It is the area between the two cumulative distribution functions. grid (G,): evenly spaced
    points that cover nearly all of both. cdf (G,): the distribution's values at these points.
    """
    x = np.sort(x)
    x_cdf = np.searchsorted(x, grid, side="right") / len(x)
    outside = np.abs(x - x.clip(grid[0], grid[-1])).mean()
    return float(np.abs(x_cdf - cdf).sum() * (grid[1] - grid[0]) + outside)


def expected_distance(count: int, grid: np.ndarray, cdf: np.ndarray) -> float:
    """Return the expected 1-Wasserstein distance of `count` random samples to their distribution.

    It is the sampling error that even a perfect sampler has. grid (G,): evenly spaced points that
    cover nearly all of the distribution. cdf (G,): its cumulative distribution function there.
    """
    cdf = cdf.clip(0, 1)  # rounding may give slightly more than 1
    spread = np.sqrt(2 / math.pi * cdf * (1 - cdf) / count)
    return float(spread.sum() * (grid[1] - grid[0]))
