"""Run samplers on one-dimensional data and draw their paths from noise to data as SVG.

A picture is a single number here, and the data are a mixture of three Gaussians, so the exact
denoiser is known (pipeline/samplers/gaussian_mixture.py). The samplers are the ones that draw
pictures; each runs on COUNT numbers at once.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.samplers import SAMPLERS, check_pair, make_sampler
from pipeline.samplers.gaussian_mixture import (
    SCHEDULER_CONFIG,
    GaussianMixture,
    GuidedMixture,
    distance,
    even_noise,
    expected_distance,
    run_sampler,
    to_points,
)

from ...texts import say

DATA = GaussianMixture(
    np.array([0.45, 0.30, 0.25]),
    np.array([[-1.05], [0.43], [1.37]]),
    np.array([0.25, 0.2, 0.18]),
)
CLASSES = {"left": [0], "right": [1, 2]}  # components of DATA
COUNT, SHOWN = 3000, 60  # paths that are computed, and those that are drawn
GRID = np.linspace(-6, 6, 2401)  # where densities are evaluated
EDGE = 3.1  # the plot shows numbers from -EDGE to EDGE
WIDE, HIGH = 1000, 500  # size of the plot in SVG units, which the page stretches
LEFT, RIGHT = 90, 800  # horizontal range of the paths; the distributions stand beside them
TAIL = 45  # width of the last part, from sigma BOTTOM to sigma 0
TOP, BOTTOM = 14.6146, 0.0292  # highest and lowest sigma of SCHEDULER_CONFIG
TICKS = (10, 3, 1, 0.3, 0.1)  # sigmas that the axis shows
INKS = (
    "#b4562f",
    "#d2992f",
    "#4f9d69",
    "#3a7fc4",
    "#7b57b8",
)  # colours of paths, by their first number
BINS = 62  # of the histogram
COUNTS = (2, 3, 5, 8, 12, 20, 32, 50)  # numbers of steps at which a curve has its points
# Colour and dashes of the curve of each of the four samplers.
LINES = (("#b4562f", ""), ("#3a7fc4", ""), ("#d2992f", "7 6"), ("#3a8c77", ""))
MOST_CALLS, FARTHEST, NEAREST = 150, 2.0, 0.001  # limits of the axes of the plot of curves


@dataclass(frozen=True)
class Run:
    """The result of running a sampler on COUNT one-dimensional samples, each a single number.

    sampler, schedule  keys of SAMPLERS and SCHEDULES; the schedule is the one that was used
    sigmas             the noise level at each step, and a last 0
    paths              (steps + 1, SHOWN): the values of the samples that a plot draws, at each of
                       `sigmas`, divided by sqrt(1 + sigma**2) as the UNet's input is
    ends               (COUNT,): the final values of all samples
    calls              how often the model was called
    """

    sampler: str
    schedule: str
    sigmas: tuple[float, ...]
    paths: np.ndarray
    ends: np.ndarray
    calls: int

    @cached_property
    def distance(self) -> float:
        """The Wasserstein-1 distance from the final samples to the data distribution DATA."""
        return distance(self.ends, GRID, DATA.cdf(GRID))

    def inside(self, name: str) -> float:
        """Return the share (0 to 1) of the final samples that are in the class `name` of CLASSES.

        A sample belongs to the class that is the more likely one at its value.
        """
        classes = DATA.responsibilities(self.ends[:, None], 0.0)
        return float((classes[:, CLASSES[name]].sum(1) > 0.5).mean())


def resolve_schedule(sampler: str, schedule: str) -> str:
    """Return `schedule`, or "automatic" if the sampler does not support it.

    sampler, schedule: keys of SAMPLERS and SCHEDULES.
    """
    return "automatic" if check_pair(sampler, schedule) else schedule


@lru_cache(512)
def run_paths(
    sampler: str, schedule: str, steps: int, seed: int = 0, name: str = "", scale: float = 0.0
) -> Run:
    """Run a sampler on COUNT one-dimensional samples at once, always from the same initial noise.

    sampler, schedule: keys of SAMPLERS and SCHEDULES. seed: the seed of the noise that the sampler
    adds at its steps. name: the class of CLASSES to which classifier-free guidance with `scale`
    leads; "" for no guidance. Raises InputError if the sampler cannot run with that many steps, or
    not at all.
    """
    model = guided_model(name, scale) if name else DATA
    schedule, generator = resolve_schedule(sampler, schedule), torch.Generator().manual_seed(seed)
    noise = even_noise(COUNT)
    ends, queries = run_sampler(
        make_sampler(sampler, schedule, SCHEDULER_CONFIG, noise, steps, generator, seed),
        model.answer,
    )
    by_step = {query.step: query for query in reversed(queries)}  # the first query of each step
    first_queries = [by_step[step] for step in sorted(by_step)]
    every = slice(COUNT // SHOWN // 2, None, COUNT // SHOWN)
    paths = np.stack([*(to_points(query.x)[every, 0] for query in first_queries), ends[every, 0]])
    sigmas = (*(query.sigma for query in first_queries), 0.0)
    return Run(sampler, schedule, sigmas, paths, ends[:, 0], len(queries))


def guided_model(name: str, scale: float) -> GuidedMixture:
    """Return the exact denoiser of the data DATA under classifier-free guidance.

    name: the class of CLASSES to which guidance leads. scale: the guidance scale.
    """
    return GuidedMixture(DATA, DATA.subset(CLASSES[name]), scale)


def sampling_error() -> float:
    """Return the Wasserstein-1 distance to expect between DATA and COUNT random draws from DATA.

    Plots of samplers' distances to the data show it for comparison: a perfect sampler that starts
    from random noise has this error.
    """
    return expected_distance(COUNT, GRID, DATA.cdf(GRID))


def to_x(sigma: float) -> float:
    """Return the horizontal position of a noise level in the plot of sampling paths, in SVG units.

    The axis is logarithmic and falls from sigma TOP at the left to sigma BOTTOM; 0 stands at the
    right end.
    """
    if sigma <= 0:
        return RIGHT
    share = math.log(TOP / min(sigma, TOP)) / math.log(TOP / BOTTOM)
    return LEFT + min(share, 1.0) * (RIGHT - TAIL - LEFT)


def to_y(x: Any) -> Any:
    """Return the vertical position of a sample's value in the plot of sampling paths, in SVG units.

    x: one value or an array of values; the result has the same form.
    """
    return HIGH / 2 * (1 - np.clip(x, -9, 9) / EDGE)


def render_paths(
    run: Run,
    language: str,
    curves: tuple[tuple[str, np.ndarray], ...] = (),
    marked: int | None = None,
    at: int = 0,
) -> str:
    """Return a plot of a sampler run as HTML: each sample's path from noise to data.

    Behind the paths is the density of the noised data. At the right a histogram shows the final
    samples, with density curves over it. curves: (CSS class of the curve, density at each point of
    GRID); by default the curve of the data. marked: the index of a path to emphasise, with a dot at
    its step `at`, from 0; None for no path.
    """
    xs = [to_x(sigma) for sigma in run.sigmas]
    lines = [
        f'<polyline points="{_points(xs, path)}" stroke="{_ink(i)}"/>'
        for i, path in enumerate(run.paths.T)
    ]
    curves = curves or (("data", DATA.density(GRID[:, None])),)
    tallest = max(density.max() for _, density in curves)
    label = say(
        "zero_plot_alt", language, count=SHOWN, distance=f"{run.distance:.3f}", calls=run.calls
    )
    extra = ""
    if marked is not None:
        path = " ".join(
            f"{x:.0f},{y:.0f}" for x, y in zip(xs, to_y(run.paths[:, marked]), strict=True)
        )
        dot = f"M{xs[at]:.0f} {to_y(run.paths[at, marked]):.0f}h0"
        extra = f'<polyline class="gb-marked" points="{path}"/><path class="gb-dot" d="{dot}"/>'
    ticks = "".join(f'<path class="gb-tick" d="M{to_x(s):.0f} 0V{HIGH}"/>' for s in TICKS)
    return (
        f'<div class="gb-paths"><svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" '
        f'role="img" aria-label="{label}">'
        f'<image href="{backdrop()}" x="{LEFT}" width="{RIGHT - LEFT}" height="{HIGH}" '
        f'preserveAspectRatio="none"/>{ticks}'
        f'<path class="gb-first" d="{_area(_unit_noise(), LEFT - 12, -LEFT + 24)}"/>'
        f'<g class="gb-ways">{"".join(lines)}</g>{extra}'
        f'<path class="gb-bars" d="{_bars(run.ends, tallest)}"/>'
        + "".join(
            f'<path class="gb-target gb-target-{name}" d="{_line(density / tallest)}"/>'
            for name, density in curves
        )
        + f"</svg>{_labels(language)}</div>"
    )


def measure_distances(sampler: str, schedule: str) -> list[tuple[int, float]]:
    """Run a sampler with each number of steps in COUNTS, to plot its error over its cost.

    Returns for each (model calls, Wasserstein-1 distance from the final samples to the data).
    """
    runs = (run_paths(sampler, schedule, steps) for steps in COUNTS)
    return [(run.calls, run.distance) for run in runs]


def render_curves(samplers: tuple[str, ...], schedule: str, language: str) -> str:
    """Return a plot as HTML that compares samplers: distance to the data over model calls.

    The distance is the Wasserstein-1 distance between a sampler's final samples and the data
    distribution. Each sampler has a curve; both axes are logarithmic. A horizontal line marks the
    distance that samples drawn from the data distribution itself would have. samplers: four keys of
    SAMPLERS. schedule: a key of SCHEDULES.
    """

    def x(calls: float) -> float:
        return WIDE * math.log(calls / COUNTS[0]) / math.log(MOST_CALLS / COUNTS[0])

    def y(error: float) -> float:
        share = math.log(min(max(error, NEAREST), FARTHEST) / NEAREST)
        return HIGH * (1 - share / math.log(FARTHEST / NEAREST))

    lines, keys = [], []
    for sampler, (ink, dashes) in zip(samplers, LINES, strict=True):
        points = " ".join(
            f"{x(calls):.0f},{y(error):.0f}"
            for calls, error in measure_distances(sampler, schedule)
        )
        look = f'stroke="{ink}" stroke-dasharray="{dashes}"'
        lines.append(f'<polyline points="{points}" {look}/>')
        keys.append(
            f'<li><svg viewBox="0 0 26 4" aria-hidden="true"><path d="M0 2H26" {look}/></svg>'
            f"{SAMPLERS[sampler].label}</li>"
        )
    x_ticks, y_ticks = (5, 10, 20, 50, 100), (1, 0.1, 0.01)
    ticks = "".join(f'<path class="gb-tick" d="M{x(n):.0f} 0V{HIGH}"/>' for n in x_ticks)
    ticks += "".join(f'<path class="gb-tick" d="M0 {y(error):.0f}H{WIDE}"/>' for error in y_ticks)
    error_line = f'<path class="gb-lucky" d="M0 {y(sampling_error()):.0f}H{WIDE}"/>'
    x_labels = "".join(f'<span style="left:{x(n) / WIDE:.1%}">{n}</span>' for n in x_ticks)
    y_labels = "".join(
        f'<span style="top:{y(error) / HIGH:.1%}">{error:g}</span>' for error in y_ticks
    )
    error_label = (
        f'<em style="top:{y(sampling_error()) / HIGH:.1%}">{say("zero_luck", language)}</em>'
    )
    return (
        f'<div class="gb-falling"><svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" '
        f'role="img" aria-label="{say("zero_curves_alt", language)}">{ticks}{error_line}'
        f'<g class="gb-ways">{"".join(lines)}</g></svg>{y_labels}{error_label}</div>'
        f'<div class="gb-axis" aria-hidden="true">{x_labels}</div>'
        f'<p class="gb-axis-name">{say("zero_calls", language)}</p>'
        f'<ul class="gb-keys">{"".join(keys)}</ul>'
    )


def _labels(language: str) -> str:
    ticks = (
        "".join(f'<span style="left:{to_x(s) / WIDE:.2%}">{s:g}</span>' for s in TICKS)
        + f'<span style="left:{RIGHT / WIDE:.2%}">0</span>'
    )
    return (
        f'<div class="gb-axis" aria-hidden="true"><b>σ</b>{ticks}</div>'
        f'<div class="gb-ends" aria-hidden="true"><span>{say("zero_noise_end", language)}</span>'
        f"<span>{say('zero_data_end', language)}</span></div>"
    )


def _points(xs: list[float], path: np.ndarray) -> str:
    return " ".join(f"{x:.0f},{y:.0f}" for x, y in zip(xs, to_y(path), strict=True))


def _ink(i: int) -> str:
    position = i / (SHOWN - 1) * (len(INKS) - 1)
    low = min(int(position), len(INKS) - 2)
    pair = [[int(ink[k : k + 2], 16) for k in (1, 3, 5)] for ink in INKS[low : low + 2]]
    mixed = (round(a + (b - a) * (position - low)) for a, b in zip(*pair, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _unit_noise() -> np.ndarray:
    """Return the density of the initial noise, a unit Gaussian, at each point of GRID.

    It is scaled to a peak of 1 for the left edge of the plot of sampling paths.
    """
    return np.exp(-(GRID**2) / 2)


def _line(heights: np.ndarray) -> str:
    """Return the SVG path of a density curve that stands right of the plot of sampling paths.

    heights: the density at each point of GRID, as a share of the largest one in the plot.
    """
    every_8th = slice(None, None, 8)
    points = zip(GRID[every_8th], heights[every_8th], strict=True)
    room = WIDE - RIGHT - 30
    ends = (f"{RIGHT + 20 + room * h:.0f} {to_y(x):.0f}" for x, h in points if abs(x) <= EDGE)
    return "M" + "L".join(ends)


def _area(heights: np.ndarray, foot: float, room: float) -> str:
    every_8th = slice(None, None, 8)
    points = zip(GRID[every_8th], heights[every_8th], strict=True)
    edge = "L".join(f"{foot + room * h:.0f} {to_y(x):.0f}" for x, h in points if abs(x) <= EDGE)
    return f"M{foot} {HIGH}L{edge}L{foot} 0Z"


def _bars(ends: np.ndarray, tallest: float) -> str:
    """Return the SVG path of a histogram of the final samples, right of the plot of their paths.

    ends: the final values, (COUNT,). tallest: the density that is drawn at full width.
    """
    counts, edges = np.histogram(ends, BINS, (-EDGE, EDGE))
    heights = counts / len(ends) / (edges[1] - edges[0]) / tallest
    foot, room = RIGHT + 20, WIDE - RIGHT - 30
    return "".join(
        f"M{foot} {to_y(low):.1f}h{min(room * h, WIDE - foot):.1f}V{to_y(high) + 1:.1f}H{foot}Z"
        for low, high, h in zip(edges[:-1], edges[1:], heights, strict=True)
        if h > 0
    )


@lru_cache
def backdrop(columns: int = 120, rows: int = 125) -> str:
    """Return the background of the plot of sampling paths as a PNG data URL.

    It shows the density of the plot's data (a mixture of Gaussians, in one dimension) with noise:
    one column for each noise level, more opaque where the density is higher. columns: the number of
    noise levels, from high at the left to low; rows: the number of values, from EDGE at the top to
    -EDGE.
    """
    tail = round(columns * TAIL / (RIGHT - LEFT))
    sigmas = [*np.geomspace(TOP, BOTTOM, columns - tail), *[BOTTOM] * tail]
    y = np.linspace(EDGE, -EDGE, rows)
    dense = np.stack(
        [DATA.density((y * math.hypot(1, s))[:, None], s) * math.hypot(1, s) for s in sigmas], 1
    )
    alpha = (255 * 0.42 * (dense / dense.max()) ** 0.6).astype(np.uint8)
    pixels = np.dstack([np.full_like(alpha, c) for c in (58, 140, 119)] + [alpha])
    data = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
