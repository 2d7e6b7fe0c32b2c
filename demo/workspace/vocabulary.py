"""The list of what a model was trained on, from its vocabulary.json: objects by group."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from pipeline.prompt.text import with_article

from ..texts import COLOURS, LANGUAGES, TEXTS, say
from ..ui.listeners import event_value

# JavaScript that reports a clicked object to the server.
_ON_LOAD = """
element.addEventListener('click', event => {
  const chip = event.target.closest('button');
  if (chip) trigger('select', {value: chip.dataset.name});
});
"""


def build_panel(i18n: gr.I18n, prompt: Component, visible: bool) -> tuple[gr.Accordion, gr.HTML]:
    """Build the collapsed panel that lists the objects a model was trained on, and the list in it.

    Returns (panel, list), which `panel_updates` fills. A clicked object is appended to the text box
    `prompt`. visible: whether the panel is shown at first.
    """
    with gr.Accordion(i18n("knows"), open=False, visible=visible, elem_id="knows") as fold:
        listed = gr.HTML(js_on_load=_ON_LOAD, apply_default_css=False, elem_classes="gb-chips")
        listed.select(_insert, prompt, prompt, queue=False, api_visibility="private")
    return fold, listed


def panel_updates(rows: list[dict] | None, language: str) -> tuple[dict[str, Any], str]:
    """Return new values for the panel that lists the objects which the loaded model was trained on.

    Returns (update that shows or hides the panel, HTML of the list in it). rows: the content of the
    model's vocabulary.json, a dict for each object; None for a model without that file: the panel
    is then hidden and the list empty. language: "en" or "zh".
    """
    return gr.update(visible=bool(rows)), render_vocabulary(rows, language) if rows else ""


def render_vocabulary(rows: list[dict], language: str) -> str:
    """Return the colours and objects that a model knows, as HTML in a language ("en" or "zh").

    rows: one dict for each object, {"emoji": "🦊", "en": "fox", "zh": "狐狸", "group": "animals"};
    its name in the language is what a click adds to the prompt.
    """
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row.get("group", "things"), []).append(row)
    folds = "".join(
        _fold(_group(group, language), members, language) for group, members in groups.items()
    )
    return (
        f"{_paragraph('knows_colours', language)}{_swatches(language)}"
        f"{_paragraph('knows_relations', language)}"
        f"{_paragraph('knows_not', language, 'gb-not')}"
        f"{_paragraph('knows_objects', language)}{folds}"
    )


def _insert(prompt: str, chosen: gr.EventData) -> str:
    name = event_value(chosen, "value", str)
    if not prompt.strip():
        return with_article(name)
    return f"{prompt.rstrip()} {with_article(name)}"


def _group(name: str, language: str) -> str:
    key = f"group_{name}"
    return say(key, language) if key in TEXTS else escape(name)


def _paragraph(key: str, language: str, kind: str = "") -> str:
    return f'<p class="gb-note {kind}">{say(key, language)}</p>'


def _swatches(language: str) -> str:
    swatches = "".join(
        f'<span class="gb-swatch"><i style="background:{names[2]}"></i>'
        f"{names[LANGUAGES.index(language)]}</span>"
        for names in COLOURS.values()
    )
    return f'<div class="gb-swatches">{swatches}</div>'


def _fold(name: str, rows: list[dict], language: str) -> str:
    chips = "".join(
        f'<button type="button" data-name="{escape(r[language])}">'
        f"<b>{escape(r['emoji'])}</b>{escape(r[language])}</button>"
        for r in rows
    )
    samples = "".join(f"<i>{escape(r['emoji'])}</i>" for r in rows[:12])
    return (
        f"<details><summary>{name} <small>{len(rows)}</small><span>{samples}</span></summary>"
        f"<div>{chips}</div></details>"
    )
