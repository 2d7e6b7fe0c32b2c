"""What a visitor may draw with: the model, and what goes into the prompt beside words."""

from __future__ import annotations

import re

import gradio as gr

from pipeline.model_files import library

from ..texts import say

TAGS = {"lora": "<lora:{}:1>", "embedding": "{}"}  # how each stands in a prompt


def model(page) -> gr.Dropdown:
    """The checkpoints to choose from; the info says what each is, or why it cannot be used."""
    name = page.model_cache.first.name
    return gr.Dropdown(
        labels(page.model_cache.choices()),
        value=name,
        label=page.i18n("model"),
        info=about(page.model_cache, name),
        elem_id="model",
    )


def vae(page) -> gr.Dropdown:
    """Another autoencoder than the model's own, where there are any."""
    return gr.Dropdown(
        vaes(page.model_cache, "en"),
        value="",
        label=page.i18n("vae"),
        info=page.i18n("vae_hint"),
        visible=bool(page.model_cache.vaes()),
        elem_id="vae",
    )


def vaes(model_cache, language: str) -> list[tuple[str, str]]:
    """What the dropdown of `vae` offers, the model's own first."""
    return [(say("vae_own", language), ""), *labels(model_cache.vaes())]


def addition(page, kind: str) -> gr.Dropdown:
    """LoRAs or embeddings to put into the prompt, where there are any; see `additions`."""
    return gr.Dropdown(
        [],
        value=None,
        label=page.i18n(kind),
        info=page.i18n(f"{kind}_hint"),
        visible=any(e.kind == kind for e in library.scan()),
        elem_id=kind,
        min_width=140,
    )


def labels(entries) -> list[tuple[str, str]]:
    """(what is shown, name) of each; those that cannot be used are marked."""
    return [
        (" · ".join(filter(None, (e.name, e.family))) + (" ✕" if e.reason else ""), e.name)
        for e in entries
    ]


def about(model_cache, name: str) -> str:
    """What the checkpoint was recognised as, or why it cannot be used; empty for an unknown one."""
    entry = find(model_cache, name)
    return (entry.reason or entry.note) if entry else ""


def find(model_cache, name: str):
    return next((e for e in model_cache.choices() if e.name == name), None)


def additions(model_cache, name: str, language: str) -> list:
    """Updates of the two `addition`s for the model `name`; those of other models are marked."""
    chosen = find(model_cache, name)
    family = chosen.family if chosen else ""
    found = library.scan()
    updates = []
    for kind in TAGS:
        choices = []
        for entry in (e for e in found if e.kind == kind):
            strange = family and entry.family and entry.family != family
            mark = say("other_family", language, family=entry.family) if strange else ""
            if entry.reason or strange:
                mark = f"{mark} ✕".strip()
            choices.append((f"{entry.name} · {mark}" if mark else entry.name, entry.name))
        updates.append(gr.update(choices=choices, value=None, visible=bool(choices)))
    return updates


def put(kind: str, prompt: str, name: str | None) -> tuple[str, None]:
    """The prompt with the LoRA or embedding behind it, unless it is there already, and no choice.

    The dropdown is emptied again: what is chosen stands in the prompt.
    """
    name = name or ""
    there = (
        rf"<lora:{re.escape(name)}[:>]" if kind == "lora" else rf"(?<!\w){re.escape(name)}(?!\w)"
    )
    if name and not re.search(there, prompt, re.IGNORECASE):
        prompt = f"{prompt.rstrip()} {TAGS[kind].format(name)}".lstrip()
    return prompt, None
