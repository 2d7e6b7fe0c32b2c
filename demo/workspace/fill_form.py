"""Show a picture's parameters text (infotext) as a table, and put its values into the form."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from pipeline.metadata.import_settings import Settings, parse_settings
from pipeline.samplers import SAMPLERS, SCHEDULES

from ..texts import request_language, say
from ..ui.listeners import UNQUEUED
from ..ui.status import status_line, warning_list
from . import sampler_menu

if TYPE_CHECKING:
    from pipeline.model_cache import ModelCache

    from ..page import Page

SHOWN_FIELDS = (  # in the order of the table
    *("sampler", "schedule", "steps", "cfg", "seed", "width", "height"),
    *("variation_seed", "variation_strength", "clip_skip", "cfg_rescale", "model"),
)
# Fields that are text boxes, since they may be empty: Gradio sends an empty number field as 0.
TEXT_NUMBERS = ("seed", "clip_skip", "variation_seed")
# The values that the form gets for fields that the parameters text does not have.
ABSENT: dict[str, Any] = {"negative": "", "cfg_rescale": 0, "variation_strength": 0}
ABSENT |= dict.fromkeys(TEXT_NUMBERS, "")


def read_parameters(text: str, model_cache: ModelCache) -> Settings:
    """Parse a picture's parameters text (infotext) into the settings of the form; never raises.

    The model that it names is looked up among those of `model_cache`, by hash, then by name.
    """
    return parse_settings(text, model_cache.hashes())


def render_settings(read: Settings, language: str) -> str:
    """Return the settings parsed from a parameters text (infotext) as HTML.

    It has prompts, warnings, a table, and the settings of other programs that are not used here.
    language: "en" or "zh".
    """
    prompts = "".join(
        f"<dt>{say(key, language)}</dt><dd>{_text(read.fields.get(key), language)}</dd>"
        for key in ("prompt", "negative")
    )
    known = {"model": read.model} | read.fields
    rows = "".join(
        f'<tr><th scope="row">{say(key, language)}</th>'
        f"<td>{escape(_value(key, known[key]))}</td></tr>"
        for key in SHOWN_FIELDS
        if known.get(key) is not None
    )
    others = ", ".join(f"{escape(k)}: {escape(v)}" for k, v in read.others.items())
    if others:
        others = f'<p class="gb-others"><b>{say("info_others", language)}</b> {others}</p>'
    return (
        f'<div class="gb-read"><dl>{prompts}</dl>{warning_list(read.warnings)}'
        f'<table class="gb-known"><tbody>{rows}</tbody></table>{others}</div>'
    )


def build_buttons(page: Page, text: Component, place: str, tab: str | None = None) -> None:
    """Build two buttons that copy a picture's settings into the form: with its seed, or a new one.

    text: the component whose value is the picture's parameters text (infotext)
    place: prefix of the buttons' elem_ids
    tab: key of the tab that is selected when one is pressed; None: the tab stays
    """
    with gr.Row(elem_classes="gb-use"):
        use = gr.Button(page.i18n("info_use"), variant="primary", elem_id=f"{place}-use")
        vary = gr.Button(page.i18n("info_vary"), elem_id=f"{place}-vary")
    page.fill(use, text, vary=False, tab=tab)
    page.fill(vary, text, vary=True, tab=tab)


def make_fill(page: Page, status: gr.HTML, load_after: Callable[..., None]) -> Callable[..., None]:
    """Return fill(button, text, vary, tab): it makes `button` copy settings into the form.

    text: the component whose value is a picture's parameters text (infotext) with the settings.
    vary: whether the seed becomes random. tab: key of the tab that is selected then, None to stay.
    status: the status line, which then says that the settings are in the form.
    load_after: the function from `switch_model.wire`, which loads the model that the text names.
    """

    def fill(button: gr.Button, text: Component, vary: bool, tab: str | None) -> None:
        def update_form(parameters: str, request: gr.Request) -> dict[Any, Any]:
            language = request_language(request)
            settings = read_parameters(parameters, page.model_cache)
            warnings = warning_list(settings.warnings)
            line = status_line("ready", say("info_used", language), below=warnings)
            selected = {page.tabs: gr.Tabs(selected=tab)} if tab else {}
            return {status: line, **selected, **form_updates(page, settings, vary)}

        outputs = [page.tabs, status, *page.form.values()]
        load_after(button.click(update_form, text, outputs, **UNQUEUED).then)

    return fill


def form_updates(page: Page, read: Settings, vary: bool) -> dict[Any, Any]:
    """Return the updates, {component: update}, that copy a picture's settings into the form.

    read: the settings parsed from its parameters text. Of the fields that they lack, those in
    ABSENT, such as the negative prompt, get the value given there, and the others stay as they are.
    The number of pictures becomes 1; the backends always stay. vary: leave the seed empty, so that
    it is random.
    """
    form = page.form
    fields: dict[str, Any] = ABSENT | {"count": 1} | read.fields
    if vary:
        fields["seed"] = ""
    fields |= {key: str(fields[key]) for key in TEXT_NUMBERS}
    if read.model is not None:
        fields["model"] = read.model
    pair = [fields.pop(key, None) for key in sampler_menu.PAIR]
    updates = {form[key]: gr.update(value=fields[key]) for key in form if key in fields}
    if pair[0]:  # a schedule alone may not suit the sampler that is chosen
        both = sampler_menu.pair_updates(page.i18n, pair[0], pair[1] or "automatic")
        updates |= {form[key]: update for key, update in both.items()}
    return updates


def _text(text: str | None, language: str) -> str:
    return escape(text) if text else f"<i>{say('info_empty', language)}</i>"


def _value(key: str, value: Any) -> str:
    if key == "sampler":
        return SAMPLERS[value].label
    if key == "schedule":
        return SCHEDULES[value].label
    return f"{value:g}" if isinstance(value, float) else str(value)
