"""Chapter iv: samplers and guidance on one-dimensional data, whose exact denoiser is known.

The data and the paths are those of sampler_paths.py.
"""

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
from ...ui.failures import error_sentence
from ...ui.listeners import UNQUEUED
from ...ui.status import error_paragraph
from . import chapter_parts, sampler_paths
from .chapter_html import locate

QUIET = UNQUEUED | {"trigger_mode": "always_last"}
SAMPLERS_AT_FIRST = ("ddpm", "ddim", "euler_a", "dpmpp_2m")
STEPS = (2, 50)  # range of the sliders for sampling steps
SCALES = (0.0, 15.0)  # range of the slider for the guidance scale
INITIAL: dict[str, Any] = {  # values of the guidance controls when the page opens
    "class": "right",
    "scale": 3.0,
    "sampler": "dpmpp_2m",
    "steps": 25,
    "look": 12,
}
FOLLOWED = sampler_paths.SHOWN // 2  # the index of the path whose numbers the formula shows
CODE = (  # whose source the chapter shows
    make_sampler,
    diffusers_adapter._run,
    sigma.ancestral,
    GaussianMixture,
    GuidedMixture,
    distance,
    Denoiser.__call__,
)


def build(page: Page) -> None:
    """Build the chapter that compares samplers, and shows guidance, on one-dimensional data.

    Adds its components to the page that is being built, and attaches their listeners.
    """
    i18n = page.i18n
    _samplers(i18n)
    _guidance(i18n)
    chapter_parts.code_excerpts(i18n, *locate(*CODE))


def _samplers(i18n: gr.I18n) -> None:
    """Add the chapter's first part: plots of four samplers on one-dimensional data.

    They show the samples' paths from noise to data, and the distance to the data over model calls.
    """
    choices = [(row.label, key) for key, row in SAMPLERS.items() if not unsupported(key)]
    schedules = [(row.label, key) for key, row in SCHEDULES.items() if not unsupported(key)]
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(
            i18n, "zero_sampling_head_title", "zero_sampling_lead", "zero_sampling_try"
        )
        with gr.Row(elem_classes="gb-tries"):
            steps = gr.Slider(
                *STEPS, value=12, step=1, label=i18n("steps"), elem_id="zero-steps", min_width=200
            )
            schedule = gr.Dropdown(
                schedules,
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
                        choices,
                        value=key,
                        label=i18n("sampler"),
                        elem_id=f"zero-sampler-{i}",
                        container=False,
                    )
                )
                views.append(chapter_parts.html(elem_id=f"zero-paths-{i}", elem_classes="gb-panel"))
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(i18n, "zero_curves_title", "zero_curves_lead")
        curves = chapter_parts.html(elem_id="zero-curves", elem_classes="gb-curves-panel")
        note = chapter_parts.html(elem_id="zero-fortune")
    seed = gr.State(0)

    def show_paths(
        request: gr.Request, steps: Any, schedule: str, seed: int, *samplers: str
    ) -> tuple[str, ...]:
        language = request_language(request)
        count = clamp(steps, STEPS)
        panels = [render_sampler(sampler, schedule, count, seed, language) for sampler in samplers]
        text = say(
            "zero_fortune",
            language,
            count=sampler_paths.COUNT,
            distance=f"{sampler_paths.sampling_error():.3f}",
        )
        return *panels, f'<p class="gb-note gb-not">{text}</p>'

    def show_curves(request: gr.Request, schedule: str, *samplers: str) -> str:
        return sampler_paths.render_curves(samplers, schedule, request_language(request))

    gr.on(None, show_curves, [schedule, *boxes], curves, **QUIET)
    inputs, outputs = [steps, schedule, seed, *boxes], [*views, note]
    gr.on(None, show_paths, inputs, outputs, **QUIET)
    again.click(lambda seed: seed + 1, seed, seed, **UNQUEUED).then(
        show_paths, inputs, outputs, **UNQUEUED
    )


def _guidance(i18n: gr.I18n) -> None:
    """Add the chapter's second part, on classifier-free guidance of one-dimensional samples.

    It has a plot of the samples' paths from noise to data, and the guidance formula with numbers.
    """
    choices = [(row.label, key) for key, row in SAMPLERS.items() if not unsupported(key)]
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
                choices,
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
    name.preprocess = str  # type: ignore[method-assign, assignment]  # `show` checks the value: Gradio's own check would log a traceback
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
            formula = chapter_parts.html(elem_id="zero-formula")

    def show(
        request: gr.Request, name: str, scale: Any, sampler: str, steps: Any, look: Any
    ) -> tuple[str, str]:
        language = request_language(request)
        chosen = name if name in sampler_paths.CLASSES else INITIAL["class"]
        scale, count = clamp(scale, SCALES), clamp(steps, STEPS)
        at = min(clamp(look, (1, STEPS[1])), count) - 1
        return render_guidance(chosen, scale, sampler, count, at, language)

    gr.on(None, show, [name, scale, sampler, steps, look], [view, formula], **QUIET)


def clamp(value: Any, limits: tuple[Any, Any]) -> Any:
    """Return a slider's value as a number of the limits' type, clipped to (low, high).

    A value that is no number gives `low`: it comes from the browser and may be anything.
    """
    low, high = limits
    try:
        number = type(low)(value)
    except (TypeError, ValueError, OverflowError):
        return low
    return min(max(number, low), high) if number == number else low


@lru_cache(256)
def render_sampler(sampler: str, schedule: str, steps: int, seed: int, language: str) -> str:
    """Return a plot of the paths that a sampler takes on one-dimensional data, as HTML.

    Below it stand the distance from the final samples to the data, and the number of model calls.
    sampler, schedule: keys of SAMPLERS and SCHEDULES. seed: the seed of the noise that the sampler
    adds. If the sampler cannot run, the HTML is an error sentence.
    """
    try:
        run = sampler_paths.run_paths(sampler, schedule, steps, seed)
    except InputError as error:
        return error_paragraph(error_sentence(error, language))
    label = SCHEDULES[run.schedule].label
    if run.schedule != schedule:
        label = say("zero_not_taken", language, plan=label, schedule=SCHEDULES[schedule].label)
    return (
        f"{sampler_paths.render_paths(run, language)}"
        '<dl class="gb-figures">'
        f"{_figure('zero_distance', f'{run.distance:.4f}', language, 'distance')}"
        f"{_figure('zero_calls', str(run.calls), language, 'calls')}"
        f"{_figure('schedule', label, language, 'schedule')}</dl>"
    )


@lru_cache(256)
def render_guidance(
    name: str, scale: float, sampler: str, steps: int, at: int, language: str
) -> tuple[str, str]:
    """Run a sampler on one-dimensional data with classifier-free guidance; return two HTML texts.

    They are (plot of the samples' paths, with statistics; guidance formula with numbers), or (an
    error sentence, "") if the sampler cannot run. name: the class to which guidance leads, a key of
    CLASSES. scale: the guidance scale. at: the step, from 0, whose numbers the formula shows.
    """
    try:
        run = sampler_paths.run_paths(sampler, "automatic", steps, 0, name, scale)
    except InputError as error:
        return error_paragraph(error_sentence(error, language)), ""
    at = min(at, len(run.sigmas) - 2)
    model, grid = sampler_paths.guided_model(name, scale), sampler_paths.GRID
    target, of_class = model.target_density(grid), model.cond.density(grid[:, None])
    step = grid[1] - grid[0]
    figures = {
        "inside": f"{run.inside(name):.1%}",
        "mean": f"{run.ends.mean():.2f} ({_mean(model.cond):.2f})",
        "spread": f"{run.ends.std():.2f} ({_spread(model.cond):.2f})",
        "to_class": f"{distance(run.ends, grid, model.cond.cdf(grid)):.3f}",
        "to_promise": f"{distance(run.ends, grid, target.cumsum() * step):.3f}",
    }
    rows = "".join(_figure(f"zero_{key}", text, language, key) for key, text in figures.items())
    curves = (("class", of_class), ("promise", target))
    legend = "".join(
        f'<li class="gb-target-{key}"><i></i>{say(f"zero_curve_{key}", language)}</li>'
        for key, _ in curves
    )
    plot = sampler_paths.render_paths(run, language, curves, FOLLOWED, at)
    html = f'{plot}<ul class="gb-keys">{legend}</ul><dl class="gb-figures">{rows}</dl>'
    return html, render_formula(run, name, scale, at, language)


def render_formula(run: sampler_paths.Run, name: str, scale: float, at: int, language: str) -> str:
    """Return the guidance formula s = s_uncond + w (s_cond - s_uncond) as HTML, with its numbers.

    s is the score (gradient of the log density), w is `scale`. The numbers are those of one sample
    of `run`, that with the index FOLLOWED, at step `at`, from 0; a table adds the predicted noise
    and the predicted clean value. name: the class to which guidance leads.
    """
    model, sigma = sampler_paths.guided_model(name, scale), run.sigmas[at]
    x = np.array([[run.paths[at, FOLLOWED] * np.hypot(1, sigma)]])
    uncond, cond = (float(m.score(x, sigma)[0, 0]) for m in (model.uncond, model.cond))
    guided = uncond + scale * (cond - uncond)
    position = say(
        "zero_at_step", language, step=at + 1, steps=len(run.sigmas) - 1,
        sigma=f"{sigma:.3f}", x=f"{x[0, 0]:.3f}",
    )  # fmt: skip
    heads = "".join(
        f"<th>{say(f'zero_of_{key}', language)}</th>" for key in ("all", "class", "both")
    )
    rows = {
        "score": (uncond, cond, guided),
        "eps": tuple(-sigma * s for s in (uncond, cond, guided)),
        "clean": tuple(x[0, 0] + sigma**2 * s for s in (uncond, cond, guided)),
    }
    body = "".join(
        f'<tr data-row="{key}"><th>{say(f"zero_row_{key}", language)}</th>'
        + "".join(f"<td>{_minus(number)}</td>" for number in numbers)
        + "</tr>"
        for key, numbers in rows.items()
    )
    return (
        f'<p class="gb-note">{position}</p>'
        '<p class="gb-guidance"><i>s</i> = <i>s</i><sub>∅</sub> + <i>w</i> '
        "(<i>s</i><sub>c</sub> − <i>s</i><sub>∅</sub>)<br>"
        f"<span>= {_minus(uncond)} + {scale:g} · ({_minus(cond)} − {_bracket(uncond)}) "
        f"= <b>{_minus(guided)}</b></span></p>"
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
