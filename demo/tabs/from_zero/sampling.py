"""Chapter iv: samplers and guidance on one-dimensional data, where the exact model is known."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gradio as gr
import numpy as np

from pipeline.denoising.denoiser import Denoiser
from pipeline.errors import InputError
from pipeline.samplers import (
    SAMPLERS,
    SCHEDULES,
    diffusers_adapter,
    make_sampler,
    sigma,
    unsupported,
)
from pipeline.samplers.gaussian_mixture import GaussianMixture, GuidedMixture, distance

from ...page import Page
from ...texts import request_language, say
from ...ui.listeners import UNQUEUED
from ...ui.status import error_paragraph
from . import chapter_parts, sampler_paths
from .chapter_html import locate

QUIET = UNQUEUED | {"trigger_mode": "always_last"}
SAMPLERS_AT_FIRST = ("ddpm", "ddim", "euler_a", "dpmpp_2m")
STEPS = (2, 50)
SCALES = (0.0, 15.0)
INITIAL: dict[str, Any] = {
    "class": "right",
    "scale": 3.0,
    "sampler": "dpmpp_2m",
    "steps": 25,
    "look": 12,
}
FOLLOWED = sampler_paths.SHOWN // 2  # the index of the path whose numbers are shown
CODE = (
    make_sampler,
    diffusers_adapter._run,
    sigma.ancestral,
    GaussianMixture,
    GuidedMixture,
    distance,
    Denoiser.__call__,
)


def build(page: Page) -> None:
    """Build the chapter's components and wire them."""
    i18n = page.i18n
    _samplers(i18n)
    _guidance(i18n)
    chapter_parts.code_excerpts(i18n, *locate(*CODE))


def _samplers(i18n: gr.I18n) -> None:
    """Build four samplers side by side, and their distances over model calls."""
    able = [(row.label, key) for key, row in SAMPLERS.items() if not unsupported(key)]
    plans = [(row.label, key) for key, row in SCHEDULES.items() if not unsupported(key)]
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(
            i18n, "zero_sampling_head_title", "zero_sampling_lead", "zero_sampling_try"
        )
        with gr.Row(elem_classes="gb-tries"):
            steps = gr.Slider(
                *STEPS, value=12, step=1, label=i18n("steps"), elem_id="zero-steps", min_width=200
            )
            schedule = gr.Dropdown(
                plans,
                value="automatic",
                label=i18n("schedule"),
                elem_id="zero-schedule",
                min_width=160,
            )
            again = gr.Button(i18n("zero_again"), elem_id="zero-again", scale=0, min_width=170)
    boxes, views = [], []
    with gr.Row(elem_classes="gb-four"):
        for i, key in enumerate(SAMPLERS_AT_FIRST):
            with gr.Column(elem_classes="gb-card", min_width=0):
                boxes.append(
                    gr.Dropdown(
                        able,
                        value=key,
                        label=i18n("sampler"),
                        elem_id=f"zero-sampler-{i}",
                        container=False,
                    )
                )
                views.append(chapter_parts.html(elem_id=f"zero-paths-{i}", elem_classes="gb-panel"))
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(i18n, "zero_curves_title", "zero_curves_lead")
        falling = chapter_parts.html(elem_id="zero-curves", elem_classes="gb-curves-panel")
        fortune = chapter_parts.html(elem_id="zero-fortune")
    seed = gr.State(0)

    def show(request: gr.Request, steps, schedule, seed, *samplers):
        language = request_language(request)
        count = clamp(steps, STEPS)
        drawn = [render_sampler(sampler, schedule, count, seed, language) for sampler in samplers]
        lucky = say(
            "zero_fortune",
            language,
            count=sampler_paths.COUNT,
            distance=f"{sampler_paths.sampling_error():.3f}",
        )
        return *drawn, f'<p class="gb-note gb-not">{lucky}</p>'

    def fall(request: gr.Request, schedule, *samplers):
        return sampler_paths.render_curves(samplers, schedule, request_language(request))

    gr.on(None, fall, [schedule, *boxes], falling, **QUIET)
    inputs, outputs = [steps, schedule, seed, *boxes], [*views, fortune]
    gr.on(None, show, inputs, outputs, **QUIET)
    again.click(lambda seed: seed + 1, seed, seed, **UNQUEUED).then(
        show, inputs, outputs, **UNQUEUED
    )


def _guidance(i18n: gr.I18n) -> None:
    """Build the guided paths, and the guidance formula with the numbers of one step."""
    able = [(row.label, key) for key, row in SAMPLERS.items() if not unsupported(key)]
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(i18n, "zero_guidance_title", "zero_guidance_lead", "zero_guidance_try")
        with gr.Row(elem_classes="gb-tries"):
            name = gr.Radio(
                [(i18n(f"zero_class_{key}"), key) for key in sampler_paths.CLASSES],
                value=INITIAL["class"],
                label=i18n("zero_class"),
                elem_id="zero-class",
                min_width=220,
            )
            scale = gr.Slider(
                *SCALES,
                value=INITIAL["scale"],
                step=0.5,
                label=i18n("cfg"),
                elem_id="zero-scale",
                min_width=220,
            )
            sampler = gr.Dropdown(
                able,
                value=INITIAL["sampler"],
                label=i18n("sampler"),
                elem_id="zero-guided-sampler",
                min_width=150,
            )
            steps = gr.Slider(
                *STEPS,
                value=INITIAL["steps"],
                step=1,
                label=i18n("steps"),
                elem_id="zero-guided-steps",
                min_width=150,
            )
    name.preprocess = str  # type: ignore[method-assign, assignment]  # `show` judges it: Gradio's refusal would be a traceback in the log
    with gr.Row(elem_classes="gb-guided"):
        with gr.Column(elem_classes="gb-card", min_width=0):
            view = chapter_parts.html(elem_id="zero-guided", elem_classes="gb-panel")
        with gr.Column(elem_classes="gb-card", min_width=0):
            look = gr.Slider(
                1,
                STEPS[1],
                value=INITIAL["look"],
                step=1,
                label=i18n("zero_look"),
                elem_id="zero-look",
            )
            told = chapter_parts.html(elem_id="zero-formula")

    def show(request: gr.Request, name, scale, sampler, steps, look):
        language = request_language(request)
        chosen = name if name in sampler_paths.CLASSES else INITIAL["class"]
        scale, count = clamp(scale, SCALES), clamp(steps, STEPS)
        at = min(clamp(look, (1, STEPS[1])), count) - 1
        return render_guidance(chosen, scale, sampler, count, at, language)

    gr.on(None, show, [name, scale, sampler, steps, look], [view, told], **QUIET)


def clamp(value: Any, limits: tuple[Any, Any]) -> Any:
    """Return a slider's value within limits and of their type; the lower one for no number."""
    low, high = limits
    try:
        number = type(low)(value)
    except (TypeError, ValueError, OverflowError):
        return low
    return min(max(number, low), high) if number == number else low


@lru_cache(256)
def render_sampler(sampler: str, schedule: str, steps: int, seed: int, language: str) -> str:
    """Return a sampler's paths, and how far from the data they end."""
    try:
        done = sampler_paths.run_paths(sampler, schedule, steps, seed)
    except InputError as error:
        return error_paragraph(str(error))
    plan = SCHEDULES[done.schedule].label
    if done.schedule != schedule:
        plan = say("zero_not_taken", language, plan=plan, schedule=SCHEDULES[schedule].label)
    return (
        f"{sampler_paths.render_paths(done, language)}"
        '<dl class="gb-figures">'
        f"{_figure('zero_distance', f'{done.distance:.4f}', language, 'distance')}"
        f"{_figure('zero_calls', str(done.calls), language, 'calls')}"
        f"{_figure('schedule', plan, language, 'schedule')}</dl>"
    )


@lru_cache(256)
def render_guidance(
    name: str, scale: float, sampler: str, steps: int, at: int, language: str
) -> tuple[str, str]:
    """Return the guided paths with their figures, and the formula with numbers of step `at`."""
    try:
        done = sampler_paths.run_paths(sampler, "automatic", steps, 0, name, scale)
    except InputError as error:
        return error_paragraph(str(error)), ""
    at = min(at, len(done.sigmas) - 2)
    model, grid = sampler_paths.guided_model(name, scale), sampler_paths.GRID
    promised, own = model.target_density(grid), model.cond.density(grid[:, None])
    step = grid[1] - grid[0]
    figures = {
        "inside": f"{done.inside(name):.1%}",
        "mean": f"{done.ends.mean():.2f} ({_mean(model.cond):.2f})",
        "spread": f"{done.ends.std():.2f} ({_spread(model.cond):.2f})",
        "to_class": f"{distance(done.ends, grid, model.cond.cdf(grid)):.3f}",
        "to_promise": f"{distance(done.ends, grid, promised.cumsum() * step):.3f}",
    }
    rows = "".join(_figure(f"zero_{key}", text, language, key) for key, text in figures.items())
    curves = (("class", own), ("promise", promised))
    legend = "".join(
        f'<li class="gb-target-{key}"><i></i>{say(f"zero_curve_{key}", language)}</li>'
        for key, _ in curves
    )
    drawn = sampler_paths.render_paths(done, language, curves, FOLLOWED, at)
    seen = f'{drawn}<ul class="gb-keys">{legend}</ul><dl class="gb-figures">{rows}</dl>'
    return seen, render_formula(done, name, scale, at, language)


def render_formula(done: sampler_paths.Run, name: str, scale: float, at: int, language: str) -> str:
    """Return score = all + w (class - all) with the numbers of step `at` of path FOLLOWED."""
    model, sigma = sampler_paths.guided_model(name, scale), done.sigmas[at]
    x = np.array([[done.paths[at, FOLLOWED] * np.hypot(1, sigma)]])
    whole, own = (float(m.score(x, sigma)[0, 0]) for m in (model.uncond, model.cond))
    both = whole + scale * (own - whole)
    place = say(
        "zero_at_step", language, step=at + 1, steps=len(done.sigmas) - 1,
        sigma=f"{sigma:.3f}", x=f"{x[0, 0]:.3f}",
    )  # fmt: skip
    heads = "".join(
        f"<th>{say(f'zero_of_{key}', language)}</th>" for key in ("all", "class", "both")
    )
    rows = {
        "score": (whole, own, both),
        "eps": tuple(-sigma * s for s in (whole, own, both)),
        "clean": tuple(x[0, 0] + sigma**2 * s for s in (whole, own, both)),
    }
    body = "".join(
        f'<tr data-row="{key}"><th>{say(f"zero_row_{key}", language)}</th>'
        + "".join(f"<td>{_minus(number)}</td>" for number in numbers)
        + "</tr>"
        for key, numbers in rows.items()
    )
    return (
        f'<p class="gb-note">{place}</p>'
        '<p class="gb-guidance"><i>s</i> = <i>s</i><sub>∅</sub> + <i>w</i> '
        "(<i>s</i><sub>c</sub> − <i>s</i><sub>∅</sub>)<br>"
        f"<span>= {_minus(whole)} + {scale:g} · ({_minus(own)} − {_bracket(whole)}) "
        f"= <b>{_minus(both)}</b></span></p>"
        f'<table class="gb-scores"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
        f'<p class="gb-note gb-not">{say("zero_formula_note", language)}</p>'
    )


def _figure(key: str, value: str, language: str, kind: str) -> str:
    return f'<div data-figure="{kind}"><dt>{say(key, language)}</dt><dd>{value}</dd></div>'


def _minus(number: float) -> str:
    return f"{number:.3f}".replace("-", "−")


def _bracket(number: float) -> str:
    return f"({_minus(number)})" if number < 0 else _minus(number)


def _mean(mixture: GaussianMixture) -> float:
    return float(mixture.weights @ mixture.means[:, 0])


def _spread(mixture: GaussianMixture) -> float:
    centred = (mixture.means[:, 0] - _mean(mixture)) ** 2
    return float(np.sqrt(mixture.weights @ (mixture.deviations**2 + centred)))
