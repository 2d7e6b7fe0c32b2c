"""A parameters text on the page: what was understood of it, and the form filled with it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import gradio as gr

from pipeline.metadata.import_settings import Settings, parse_settings
from pipeline.samplers import SAMPLERS, SCHEDULES

from ..texts import request_language, say
from ..ui.listeners import UNQUEUED
from ..ui.status import status_line, warning_list
from . import sampler_menu

TABLE = (  # in this order
    *("sampler", "schedule", "steps", "cfg", "seed", "width", "height"),
    *("variation_seed", "variation_strength", "clip_skip", "cfg_rescale", "model"),
)
TYPED = ("seed", "clip_skip", "variation_seed")  # text boxes: an empty number field is sent as 0
ABSENT = {"negative": "", "cfg_rescale": 0, "variation_strength": 0}  # as nothing means it
ABSENT |= dict.fromkeys(TYPED, "")


def read(text: str, model_cache) -> Settings:
    """What `text` says, as far as this page knows it."""
    return parse_settings(text, model_cache.hashes())


def html(read: Settings, language: str) -> str:
    """Prompts, the settings understood, those that are not used, and warnings."""
    prompts = "".join(
        f"<dt>{say(key, language)}</dt><dd>{_text(read.fields.get(key), language)}</dd>"
        for key in ("prompt", "negative")
    )
    known = {"model": read.model} | read.fields
    rows = "".join(
        f'<tr><th scope="row">{say(key, language)}</th>'
        f"<td>{escape(_value(key, known[key]))}</td></tr>"
        for key in TABLE
        if known.get(key) is not None
    )
    others = ", ".join(f"{escape(k)}: {escape(v)}" for k, v in read.others.items())
    if others:
        others = f'<p class="gb-others"><b>{say("info_others", language)}</b> {others}</p>'
    return (
        f'<div class="gb-read"><dl>{prompts}</dl>{warning_list(read.warnings)}'
        f'<table class="gb-known"><tbody>{rows}</tbody></table>{others}</div>'
    )


def buttons(page, text, place: str, tab: str | None = None) -> None:
    """Two buttons that fill the shared settings with what the component `text` holds, and bring
    `tab` to the front."""
    with gr.Row(elem_classes="gb-use"):
        use = gr.Button(page.i18n("info_use"), variant="primary", elem_id=f"{place}-use")
        vary = gr.Button(page.i18n("info_vary"), elem_id=f"{place}-vary")
    page.fill(use, text, vary=False, tab=tab)
    page.fill(vary, text, vary=True, tab=tab)


def filler(page, status, after) -> Callable:
    """`fill(button, text, vary, tab)` makes a button fill the form from the component `text`, and
    bring `tab` to the front, if any.

    status: where it is said; after: see switch.wire.
    """

    def fill(button: gr.Button, text, vary: bool, tab: str | None) -> None:
        def put(words: str, request: gr.Request):
            language, got = request_language(request), read(words, page.model_cache)
            said = status_line(
                "ready", say("info_used", language), below=warning_list(got.warnings)
            )
            front = {page.tabs: gr.Tabs(selected=tab)} if tab else {}
            return {status: said, **front, **filled(page, got, vary)}

        outputs = [page.tabs, status, *page.form.values()]
        after(button.click(put, text, outputs, **UNQUEUED).then)

    return fill


def filled(page, read: Settings, vary: bool) -> dict:
    """{component: update} of the form; backends and what the text says nothing of stay."""
    form = page.form
    fields = ABSENT | {"count": 1} | read.fields
    if vary:
        fields["seed"] = ""
    fields |= {key: str(fields[key]) for key in TYPED}
    if read.model is not None:
        fields["model"] = read.model
    pair = [fields.pop(key, None) for key in sampler_menu.PAIR]
    updates = {form[key]: gr.update(value=fields[key]) for key in form if key in fields}
    if pair[0]:  # without a sampler, who knows whether this one takes the schedule
        both = sampler_menu.updates(page.i18n, pair[0], pair[1] or "automatic")
        updates |= {form[key]: update for key, update in both.items()}
    return updates


def _text(text: str | None, language: str) -> str:
    return escape(text) if text else f"<i>{say('info_empty', language)}</i>"


def _value(key: str, value) -> str:
    table = {"sampler": SAMPLERS, "schedule": SCHEDULES}.get(key)
    if table:
        return table[value].label
    return f"{value:g}" if isinstance(value, float) else str(value)
