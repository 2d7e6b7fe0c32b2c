"""Paths of a sampler from noise to one-dimensional data, as SVG.

The data are a mixture of three Gaussians, so the exact model is known (gaussian_mixture.py); the
samplers are those that draw pictures, run on COUNT numbers at once.
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
COUNT, SHOWN = 3000, 60  # numbers in all, and those whose path is drawn
GRID = np.linspace(-6, 6, 2401)
EDGE = 3.1  # the plot shows numbers from -EDGE to EDGE
WIDE, HIGH = 1000, 500  # of the plot, in its own units, which the page stretches
LEFT, RIGHT = 90, 800  # where paths begin and end; the distributions stand beside them
TAIL = 45  # from the lowest noise level that is trained to none at all
TOP, BOTTOM = 14.6146, 0.0292  # the noise levels of NOISE, highest and lowest
TICKS = (10, 3, 1, 0.3, 0.1)
INKS = ("#b4562f", "#d2992f", "#4f9d69", "#3a7fc4", "#7b57b8")  # of paths, by where they begin
BINS = 62
COUNTS = (2, 3, 5, 8, 12, 20, 32, 50)  # steps of which the distances make a curve
LINES = (("#b4562f", ""), ("#3a7fc4", ""), ("#d2992f", "7 6"), ("#3a8c77", ""))  # ink and dashes
MOST_CALLS, FARTHEST, NEAREST = 150, 2.0, 0.001  # of the plot of curves


@dataclass(frozen=True)
class Run:
    """The result of a sampler.

    sigmas: the noise level of each step, and a last 0. paths (steps + 1, SHOWN): the numbers there,
    in the UNet's scale. ends (COUNT,). calls: of the model.
    """

    sampler: str
    schedule: str
    sigmas: tuple[float, ...]
    paths: np.ndarray
    ends: np.ndarray
    calls: int

    @cached_property
    def distance(self) -> float:
        """The Wasserstein distance from the ends to DATA."""
        return distance(self.ends, GRID, DATA.cdf(GRID))

    def inside(self, name: str) -> float:
        """Return the share of the ends that most likely belong to a class."""
        classes = DATA.responsibilities(self.ends[:, None], 0.0)
        return float((classes[:, CLASSES[name]].sum(1) > 0.5).mean())


def resolve_schedule(sampler: str, schedule: str) -> str:
    """Return the schedule, or "automatic" where the sampler does not support it."""
    return "automatic" if check_pair(sampler, schedule) else schedule


@lru_cache(512)
def run_paths(
    sampler: str, schedule: str, steps: int, seed: int = 0, name: str = "", scale: float = 0.0
) -> Run:
    """Run a sampler on COUNT numbers; the first noise is always the same.

    seed: of the noise that the sampler adds. name, scale: of a class and of the guidance to it.
    """
    model = guided_model(name, scale) if name else DATA
    plan, generator = resolve_schedule(sampler, schedule), torch.Generator().manual_seed(seed)
    noise = even_noise(COUNT)
    ends, queries = run_sampler(
        make_sampler(sampler, plan, SCHEDULER_CONFIG, noise, steps, generator, seed), model.answer
    )
    firsts = {query.step: query for query in reversed(queries)}
    on_way = [firsts[step] for step in sorted(firsts)]
    every = slice(COUNT // SHOWN // 2, None, COUNT // SHOWN)
    paths = np.stack([*(to_points(query.x)[every, 0] for query in on_way), ends[every, 0]])
    sigmas = (*(query.sigma for query in on_way), 0.0)
    return Run(sampler, plan, sigmas, paths, ends[:, 0], len(queries))


def guided_model(name: str, scale: float) -> GuidedMixture:
    """Return the exact model of DATA with guidance to a class."""
    return GuidedMixture(DATA, DATA.subset(CLASSES[name]), scale)


def sampling_error() -> float:
    """Return the expected distance of COUNT numbers that are drawn from DATA itself."""
    return expected_distance(COUNT, GRID, DATA.cdf(GRID))


def to_x(sigma: float) -> float:
    """Return the horizontal position of a noise level: logarithmic, 0 at the right end."""
    if sigma <= 0:
        return RIGHT
    share = math.log(TOP / min(sigma, TOP)) / math.log(TOP / BOTTOM)
    return LEFT + min(share, 1.0) * (RIGHT - TAIL - LEFT)


def to_y(x: Any) -> Any:
    """Return the vertical position of a number, or of an array of them, in the plot."""
    return HIGH / 2 * (1 - np.clip(x, -9, 9) / EDGE)


def render_paths(
    done: Run, language: str, curves: tuple = (), marked: int | None = None, at: int = 0
) -> str:
    """Return the paths over the density of noised data, and the histogram of their ends.

    curves: (class of the line, density over GRID), DATA's own if none. marked: a path that stands
    out, with a dot at its step `at`.
    """
    xs = [to_x(sigma) for sigma in done.sigmas]
    lines = [
        f'<polyline points="{_points(xs, path)}" stroke="{_ink(i)}"/>'
        for i, path in enumerate(done.paths.T)
    ]
    curves = curves or (("data", DATA.density(GRID[:, None])),)
    tallest = max(density.max() for _, density in curves)
    label = say(
        "zero_plot_alt", language, count=SHOWN, distance=f"{done.distance:.3f}", calls=done.calls
    )
    extra = ""
    if marked is not None:
        path = " ".join(
            f"{x:.0f},{y:.0f}" for x, y in zip(xs, to_y(done.paths[:, marked]), strict=True)
        )
        here = f"M{xs[at]:.0f} {to_y(done.paths[at, marked]):.0f}h0"
        extra = f'<polyline class="gb-marked" points="{path}"/><path class="gb-dot" d="{here}"/>'
    ticks = "".join(f'<path class="gb-tick" d="M{to_x(s):.0f} 0V{HIGH}"/>' for s in TICKS)
    return (
        f'<div class="gb-paths"><svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" '
        f'role="img" aria-label="{label}">'
        f'<image href="{backdrop()}" x="{LEFT}" width="{RIGHT - LEFT}" height="{HIGH}" '
        f'preserveAspectRatio="none"/>{ticks}'
        f'<path class="gb-first" d="{_area(_unit_noise(), LEFT - 12, -LEFT + 24)}"/>'
        f'<g class="gb-ways">{"".join(lines)}</g>{extra}'
        f'<path class="gb-bars" d="{_bars(done.ends, tallest)}"/>'
        + "".join(
            f'<path class="gb-target gb-target-{name}" d="{_line(density / tallest)}"/>'
            for name, density in curves
        )
        + f"</svg>{_labels(language)}</div>"
    )


def measure_distances(sampler: str, schedule: str) -> list[tuple[int, float]]:
    """Return (model calls, Wasserstein distance of the samples to the data) for each of COUNTS."""
    runs = (run_paths(sampler, schedule, steps) for steps in COUNTS)
    return [(done.calls, done.distance) for done in runs]


def render_curves(samplers: tuple[str, ...], schedule: str, language: str) -> str:
    """Return the distance over model calls, both logarithmic, and the sampling error as a line."""

    def x(calls: float) -> float:
        return WIDE * math.log(calls / COUNTS[0]) / math.log(MOST_CALLS / COUNTS[0])

    def y(far: float) -> float:
        share = math.log(min(max(far, NEAREST), FARTHEST) / NEAREST)
        return HIGH * (1 - share / math.log(FARTHEST / NEAREST))

    lines, keys = [], []
    for sampler, (ink, dashes) in zip(samplers, LINES, strict=True):
        points = " ".join(
            f"{x(calls):.0f},{y(far):.0f}" for calls, far in measure_distances(sampler, schedule)
        )
        look = f'stroke="{ink}" stroke-dasharray="{dashes}"'
        lines.append(f'<polyline points="{points}" {look}/>')
        keys.append(
            f'<li><svg viewBox="0 0 26 4" aria-hidden="true"><path d="M0 2H26" {look}/></svg>'
            f"{SAMPLERS[sampler].label}</li>"
        )
    across_, up_ = (5, 10, 20, 50, 100), (1, 0.1, 0.01)
    ticks = "".join(f'<path class="gb-tick" d="M{x(n):.0f} 0V{HIGH}"/>' for n in across_)
    ticks += "".join(f'<path class="gb-tick" d="M0 {y(far):.0f}H{WIDE}"/>' for far in up_)
    lucky = f'<path class="gb-lucky" d="M0 {y(sampling_error()):.0f}H{WIDE}"/>'
    words = "".join(f'<span style="left:{x(n) / WIDE:.1%}">{n}</span>' for n in across_)
    heights = "".join(f'<span style="top:{y(far) / HIGH:.1%}">{far:g}</span>' for far in up_)
    luck_ = f'<em style="top:{y(sampling_error()) / HIGH:.1%}">{say("zero_luck", language)}</em>'
    return (
        f'<div class="gb-falling"><svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" '
        f'role="img" aria-label="{say("zero_curves_alt", language)}">{ticks}{lucky}'
        f'<g class="gb-ways">{"".join(lines)}</g></svg>{heights}{luck_}</div>'
        f'<div class="gb-axis" aria-hidden="true">{words}</div>'
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
    place = i / (SHOWN - 1) * (len(INKS) - 1)
    low = min(int(place), len(INKS) - 2)
    pair = [[int(ink[k : k + 2], 16) for k in (1, 3, 5)] for ink in INKS[low : low + 2]]
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(*pair, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _unit_noise() -> np.ndarray:
    """Return the density of unit noise over GRID, 1 at its peak."""
    return np.exp(-(GRID**2) / 2)


def _line(heights: np.ndarray) -> str:
    """Return a density over GRID, 1 at its peak, as an SVG path beside the plot."""
    shown = slice(None, None, 8)
    points = zip(GRID[shown], heights[shown], strict=True)
    room = WIDE - RIGHT - 30
    ends = (f"{RIGHT + 20 + room * h:.0f} {to_y(x):.0f}" for x, h in points if abs(x) <= EDGE)
    return "M" + "L".join(ends)


def _area(heights: np.ndarray, foot: float, room: float) -> str:
    shown = slice(None, None, 8)
    points = zip(GRID[shown], heights[shown], strict=True)
    edge = "L".join(f"{foot + room * h:.0f} {to_y(x):.0f}" for x, h in points if abs(x) <= EDGE)
    return f"M{foot} {HIGH}L{edge}L{foot} 0Z"


def _bars(ends: np.ndarray, tallest: float) -> str:
    """Return a histogram of the ends as an SVG path, in the scale of a density."""
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
    """Return the density of noised data over noise level as a transparent PNG data URL."""
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
