"""Draw curves as inline SVG, with a linear x axis, a logarithmic y axis and the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 300  # of the SVG's viewBox
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 46  # margins
# SVG dash patterns, one for each curve, so that two curves in the same place are both visible.
DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 2", "14 3")


@dataclass(frozen=True)
class Curve:
    """One curve of a plot with a logarithmic y axis.

    points: (x, y) pairs with y > 0
    mark: index, from 0, that selects the curve's colour (CSS class gb-lane-0, ...) and dash pattern
    """

    points: Sequence[tuple[float, float]]
    mark: int


@dataclass(frozen=True)
class Frame:
    """The range of a plot's axes: x from 0 to `right`, y (logarithmic) from `low` to `high`.

    0 < low < high. Points with y below `low` are drawn on the lower edge.
    """

    right: float
    low: float
    high: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where the plot draws the data point (x, y): SVG coordinates, viewBox units."""
        share = math.log(max(y, self.low) / self.low) / math.log(self.high / self.low)
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * x / self.right,
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share,
        )

    def around(self, curves: Sequence[Curve]) -> Frame:
        """Return a copy of the axes' range that is increased until all points of the curves fit in.

        Only `right`, the end of the x axis, and `high`, that of the y axis, are increased.
        """
        xs = [x for curve in curves for x, _ in curve.points]
        ys = [y for curve in curves for _, y in curve.points]
        return Frame(max(self.right, *xs, 1), self.low, max(self.high, *ys, 0))


def plot(curves: Sequence[Curve], frame: Frame, *, x_label: str, alt: str, empty: str = "") -> str:
    """Return a plot of the curves as an SVG, with axes and grid lines; the y axis is logarithmic.

    frame: the smallest range of the axes; it grows with the curves
    x_label: what stands under the x axis
    alt: text alternative for screen readers
    empty: what stands in the plot while no curve has points
    """
    frame = frame.around(curves)
    lines = []
    for x in _steps(frame.right):
        at, _ = frame.place(x, frame.high)
        lines.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        lines.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 19}">{x:g}</text>')
    for y in _decades(frame.low, frame.high):
        _, at = frame.place(0, y)
        lines.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text class="gb-y" x="{LEFT - 6}" y="{at + 4:.1f}">{y:g}</text>')
    drawn = "".join(_line(curve, frame) for curve in curves if curve.points)
    middle = (LEFT + WIDTH - RIGHT) / 2
    if not drawn and empty:
        lines.append(f'<text class="gb-empty" x="{middle}" y="{HEIGHT / 2}">{escape(empty)}</text>')
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    return (
        f'<svg class="gb-plot" {box} role="img" aria-label="{escape(alt)}">'
        f'<g class="gb-axes">{"".join(lines)}'
        f'<text class="gb-name" x="{middle}" y="{HEIGHT - 5}">{escape(x_label)}</text>'
        f"</g>{drawn}</svg>"
    )


def swatch(mark: int) -> str:
    """Return a short line as SVG, which stands beside a curve's name in a legend.

    mark: the curve's `Curve.mark`, which selects its colour and dash pattern.
    """
    return (
        f'<svg class="gb-swatch-line gb-lane-{mark}" viewBox="0 0 26 8" aria-hidden="true">'
        f'<path class="gb-curve"{_dash(mark)} d="M1 4H25"/></svg>'
    )


def _line(curve: Curve, frame: Frame) -> str:
    """Return a curve as SVG, with a dot at its last point. frame: the range of the plot's axes."""
    places = [frame.place(*point) for point in curve.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    return (
        f'<g class="gb-lane-{curve.mark}">'
        f'<polyline class="gb-curve"{_dash(curve.mark)} points="{path}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"/></g>'
    )


def _dash(mark: int) -> str:
    dash = DASHES[mark % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _steps(right: float) -> list[float]:
    """Return about five round numbers from 0 to `right`, for the grid lines of the x axis."""
    rough = right / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = max(1, next(unit * n for n in (1, 2, 5, 10) if unit * n >= rough))
    return [step * i for i in range(math.floor(right / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Return the values between `low` and `high` at which the y axis has grid lines.

    Powers of ten, and over a small range also some multiples of them (2 and 5, or 3).
    """
    digits = (1,) if high / low > 2000 else (1, 2, 5) if high / low < 60 else (1, 3)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = (digit * 10.0**power for power in range(first, last + 1) for digit in digits)
    return [y for y in every if low * 0.999 <= y <= high * 1.001]
