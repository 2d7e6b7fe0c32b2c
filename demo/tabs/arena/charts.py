"""Render the curves, tables and explanations of the tab Arena as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.introspection import arena
from pipeline.model import Models
from pipeline.samplers import SAMPLERS

from ...texts import say
from ...ui.failures import hide_paths
from ...ui.plots import Curve, Frame, plot, swatch
from .race_events import LaneState

SIGMA_RANGE, DISTANCE_RANGE = (0.02, 20.0), (0.001, 2.0)  # the least that the vertical axes show


def render_curves(
    lanes: Sequence[LaneState], samplers: Sequence[str], steps: int, language: str
) -> str:
    """Return the two plots of a race, in which samplers draw the same picture, as HTML.

    They show the noise level over the steps, and over the model calls the distance of each
    sampler's latents to a reference, an almost exact solution of the ODE. lanes: the state of each
    sampler in the race; () for empty plots. samplers: their keys in SAMPLERS, in the same order.
    steps: the number of steps of each sampler.
    """
    calls = max((SAMPLERS[s].calls * steps for s in samplers), default=steps)
    names = ", ".join(lane.label for lane in lanes)
    sigma = plot(
        [Curve(lane.sigmas, i) for i, lane in enumerate(lanes)],
        Frame(steps, *SIGMA_RANGE),
        x_label=say("steps", language),
        alt=say("arena_sigma_alt", language, names=names),
    )
    distance = plot(
        [Curve([*enumerate(lane.distances, 1)], i) for i, lane in enumerate(lanes)],
        Frame(calls, *DISTANCE_RANGE),
        x_label=say("arena_head_calls", language),
        alt=say("arena_far_alt", language, names=names),
        empty=say("arena_far_later", language) if lanes else "",
    )
    legend = "".join(f"<li>{swatch(i)}{escape(lane.label)}</li>" for i, lane in enumerate(lanes))
    figures = "".join(
        f"<figure><figcaption>{say(title, language)}</figcaption>{chart}</figure>"
        for title, chart in (("arena_sigma", sigma), ("arena_far_title", distance))
    )
    return f'<div class="gb-plots">{figures}</div><ul class="gb-legend">{legend}</ul>'


def explain_samplers(language: str) -> str:
    """Return an HTML text that explains how a race compares samplers, which draw one picture.

    It explains the reference (an almost exact solution of the probability flow ODE) and the
    distance to it, and lists the samplers that do not solve this ODE: their distance is no measure
    of their error.
    """
    name, steps = arena.REFERENCE.label, arena.REFERENCE_STEPS
    fresh, other = (
        ", ".join(SAMPLERS[key].label for key in SAMPLERS if key in keys)
        for keys in (arena.STOCHASTIC, arena.NOT_ODE - arena.STOCHASTIC)
    )
    return _notes(
        say("arena_about", language, name=name, steps=steps),
        say("arena_elsewhere", language, fresh=fresh, other=other),
    )


def explain_backends(models: Models, language: str) -> str:
    """Return an HTML text that explains how attention and GroupNorm backends are compared.

    In the tab Arena they draw the same picture side by side. The text also lists the backends that
    cannot run on this server, each with the reason.
    """
    base = arena.BackendPair(**arena.PLAIN).label
    about = _notes(say("arena_backends_about", language, base=base))
    rows = "".join(
        f"<li><b>{say(kind, language)}: {escape(name)}</b> {escape(hide_paths(why))}</li>"
        for kind, name, why in arena.missing_backends(models)
    )
    if not rows:
        return about
    head = say("arena_absent", language)
    return f'{about}<div class="gb-absent"><p>{head}</p><ul>{rows}</ul></div>'


def _notes(*sentences: str) -> str:
    return "".join(f'<p class="gb-note gb-not">{escape(s)}</p>' for s in sentences)


def format_number(value: float) -> str:
    """Return a number with three significant digits, in scientific notation only below 0.0001."""
    return f"{value:.3g}" if value == 0 or value >= 1e-4 else f"{value:.1e}"


def render_table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """Return an HTML table. heads: column titles, plain text. rows: the results of `render_row`."""
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "".join(rows)
    return (
        '<div class="gb-scroll" tabindex="0"><table class="gb-results">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def render_row(first: str, cells: Sequence[object]) -> str:
    """Return a table row as HTML. first: its heading, HTML; cells: the other cells, HTML."""
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
