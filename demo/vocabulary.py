"""What the model knows, said plainly: its objects to choose from, its colours and relations."""

from __future__ import annotations

from html import escape

import gradio as gr

from pipeline.text import with_article

from .texts import COLOURS

# Chips carry both names; the page's language shows one and puts it into the prompt.
_ON_LOAD = """
const zh = (navigator.language || '').toLowerCase().startsWith('zh');
element.classList.add(zh ? 'gb-zh' : 'gb-en');
element.addEventListener('click', event => {
  const chip = event.target.closest('button');
  if (chip) trigger('select', {value: zh ? chip.dataset.zh : chip.dataset.en});
});
"""


def panel(i18n, rows: list[dict], prompt: gr.Textbox) -> None:
    """A folding list of `vocabulary.json`; choosing an object puts it into `prompt`."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row.get("group", "things"), []).append(row)
    with gr.Accordion(i18n("knows"), open=False, elem_id="knows"):
        gr.HTML(_paragraph(i18n("knows_colours")))
        gr.HTML(
            _swatches(), js_on_load=_ON_LOAD, apply_default_css=False, elem_classes="gb-swatches"
        )
        gr.HTML(_paragraph(i18n("knows_relations")))
        gr.HTML(_paragraph(i18n("knows_not"), "gb-not"))
        gr.HTML(_paragraph(i18n("knows_objects")))
        for group, members in groups.items():
            chips = gr.HTML(
                _fold(i18n(f"group_{group}"), members),
                js_on_load=_ON_LOAD,
                apply_default_css=False,
                elem_classes="gb-chips",
            )
            chips.select(_insert, prompt, prompt, queue=False, api_visibility="private")


def _insert(prompt: str, chosen: gr.EventData) -> str:
    name = str(chosen.value)
    if not prompt.strip():
        return with_article(name)
    return f"{prompt.rstrip()} {with_article(name)}"


def _paragraph(text, kind: str = "") -> str:
    return f'<p class="gb-note {kind}">{text}</p>'


def _names(en: str, zh: str) -> str:
    return f'<span class="en">{escape(en)}</span><span class="zh">{escape(zh)}</span>'


def _swatches() -> str:
    return "".join(
        f'<span class="gb-swatch"><i style="background:{look}"></i>{_names(en, zh)}</span>'
        for en, zh, look in COLOURS.values()
    )


def _fold(name, rows: list[dict]) -> str:
    chips = "".join(
        f'<button type="button" data-en="{escape(r["en"])}" data-zh="{escape(r["zh"])}">'
        f"<b>{escape(r['emoji'])}</b>{_names(r['en'], r['zh'])}</button>"
        for r in rows
    )
    look = "".join(f"<i>{escape(r['emoji'])}</i>" for r in rows[:12])
    return (
        f"<details><summary>{name} <small>{len(rows)}</small><span>{look}</span></summary>"
        f"<div>{chips}</div></details>"
    )
