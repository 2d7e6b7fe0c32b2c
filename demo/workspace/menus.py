"""Menus of checkpoints, autoencoders, LoRAs and embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipeline.model_files import library
from pipeline.model_files.library import Entry

from ..texts import say

if TYPE_CHECKING:
    from pipeline.model_cache import ModelCache

    from ..page import Page

Choices = list[tuple[str, str]]  # (label, value)

TAGS = {"lora": "<lora:{}:1>", "embedding": "{}"}  # what goes into the prompt


def model_dropdown(page: Page) -> gr.Dropdown:
    """Build the menu of checkpoints; its info says what the chosen one is."""
    name = page.model_cache.first.name
    return gr.Dropdown(
        choice_labels(page.model_cache.choices()),
        value=name,
        label=page.i18n("model"),
        info=describe_checkpoint(page.model_cache, name),
        elem_id="model",
    )


def vae_dropdown(page: Page) -> gr.Dropdown:
    """Build the menu of autoencoders, hidden where there are none but the model's own."""
    return gr.Dropdown(
        vae_choices(page.model_cache, "en"),
        value="",
        label=page.i18n("vae"),
        info=page.i18n("vae_hint"),
        visible=bool(page.model_cache.vaes()),
        elem_id="vae",
    )


def vae_choices(model_cache: ModelCache, language: str) -> Choices:
    """Return the choices of autoencoders, the model's own first."""
    return [(say("vae_own", language), ""), *choice_labels(model_cache.vaes())]


def addition_dropdown(page: Page, kind: str) -> gr.Dropdown:
    """Build the menu of LoRAs or embeddings, empty until `addition_updates` fills it.

    kind: a key of TAGS. It is hidden where there are none.
    """
    return gr.Dropdown(
        [],
        value=None,
        label=page.i18n(kind),
        info=page.i18n(f"{kind}_hint"),
        visible=any(e.kind == kind for e in library.scan()),
        elem_id=kind,
        min_width=140,
    )


def choice_labels(entries: Iterable[Entry]) -> Choices:
    """Return (label, name) of each entry; ✕ marks those that cannot be used."""
    return [
        (" · ".join(filter(None, (e.name, e.family))) + (" ✕" if e.reason else ""), e.name)
        for e in entries
    ]


def describe_checkpoint(model_cache: ModelCache, name: str) -> str:
    """Return what a checkpoint was identified as, or why it cannot be used; "" if unknown."""
    entry = find_checkpoint(model_cache, name)
    return (entry.reason or entry.note) if entry else ""


def find_checkpoint(model_cache: ModelCache, name: str) -> Entry | None:
    """Return the checkpoint of that name, None where there is none."""
    return next((e for e in model_cache.choices() if e.name == name), None)


def addition_updates(model_cache: ModelCache, name: str, language: str) -> list[dict[str, Any]]:
    """Return updates of the menus of LoRAs and embeddings for the model `name`.

    ✕ marks files that are for another family of models.
    """
    chosen = find_checkpoint(model_cache, name)
    family = chosen.family if chosen else ""
    found = library.scan()
    updates = []
    for kind in TAGS:
        choices = []
        for entry in (e for e in found if e.kind == kind):
            foreign = family and entry.family and entry.family != family
            mark = say("other_family", language, family=entry.family) if foreign else ""
            if entry.reason or foreign:
                mark = f"{mark} ✕".strip()
            choices.append((f"{entry.name} · {mark}" if mark else entry.name, entry.name))
        updates.append(gr.update(choices=choices, value=None, visible=bool(choices)))
    return updates


def add_to_prompt(kind: str, prompt: str, name: str | None) -> tuple[str, None]:
    """Return the prompt with a LoRA or embedding appended, unless it has it, and an empty choice.

    The menu is emptied again, because the choice now stands in the prompt.
    """
    name = name or ""
    pattern = (
        rf"<lora:{re.escape(name)}[:>]" if kind == "lora" else rf"(?<!\w){re.escape(name)}(?!\w)"
    )
    if name and not re.search(pattern, prompt, re.IGNORECASE):
        prompt = f"{prompt.rstrip()} {TAGS[kind].format(name)}".lstrip()
    return prompt, None
