"""Menus of checkpoints, autoencoders, LoRAs and embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipeline.model_files import library
from pipeline.model_files.library import Entry

from ..texts import say
from ..ui.failures import hide_paths

if TYPE_CHECKING:
    from pipeline.model_cache import ModelCache

    from ..page import Page

Choices = list[tuple[str, str]]  # (label, value)

# From the kind of a file to what choosing a file of that kind, named {}, adds to the prompt.
TAGS = {"lora": "<lora:{}:1>", "embedding": "{}"}


def model_dropdown(page: Page) -> gr.Dropdown:
    """Build the menu of checkpoints; the text under it describes the chosen one."""
    name = page.model_cache.first.name
    return gr.Dropdown(
        choice_labels(page.model_cache.choices()),
        value=name,
        label=page.i18n("model"),
        info=describe_checkpoint(page.model_cache, name),
        elem_id="model",
    )


def vae_dropdown(page: Page) -> gr.Dropdown:
    """Build the menu of autoencoders (VAEs), hidden if there is none besides the model's own."""
    return gr.Dropdown(
        vae_choices(page.model_cache, "en"),
        value="",
        label=page.i18n("vae"),
        info=page.i18n("vae_hint"),
        visible=bool(page.model_cache.vaes()),
        elem_id="vae",
    )


def vae_choices(model_cache: ModelCache, language: str) -> Choices:
    """Return the choices of the menu of autoencoders; the first, "", is the model's own."""
    return [(say("vae_own", language), ""), *choice_labels(model_cache.vaes())]


def addition_dropdown(page: Page, kind: str) -> gr.Dropdown:
    """Build the menu of LoRAs or of embeddings; choosing one adds it to the prompt.

    It has no choices until `addition_updates` sets them, and is hidden if the server has no file of
    that kind. kind: "lora" or "embedding".
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
    """Return the menu choices of model files as (label, name); ✕ marks a file that cannot be used.

    entries: the files, from pipeline.model_files.library.
    """
    return [
        (" · ".join(filter(None, (e.name, e.family))) + (" ✕" if e.reason else ""), e.name)
        for e in entries
    ]


def describe_checkpoint(model_cache: ModelCache, name: str) -> str:
    """Return what kind of model the checkpoint `name` is, or why it cannot be used.

    "" for an unknown name.
    """
    entry = find_checkpoint(model_cache, name)
    return hide_paths(entry.reason or entry.note) if entry else ""


def find_checkpoint(model_cache: ModelCache, name: str) -> Entry | None:
    """Return the model library's entry (file, kind, family, ...) of the checkpoint `name`.

    None if the library has no checkpoint of that name.
    """
    return next((e for e in model_cache.choices() if e.name == name), None)


def addition_updates(
    model_cache: ModelCache, name: str, language: str, lora_folder: Path | None = None
) -> list[dict[str, Any]]:
    """Return updates that list LoRAs in one menu and embeddings in the other, in this order.

    ✕ in a label marks a file that cannot be used, or that is for another family of models (such as
    SD 2.x) than the checkpoint `name`. lora_folder: a folder whose LoRAs are listed too, besides
    those in ./models; None for none.
    """
    chosen = find_checkpoint(model_cache, name)
    family = chosen.family if chosen else ""
    found = library.scan(lora_folder)
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
    """Return the prompt with the LoRA or embedding `name` appended, and None.

    None is the new value of the menu where it was chosen: it is emptied, because the choice now
    stands in the prompt. The prompt stays if it names the file already, or if `name` is None. kind:
    "lora" or "embedding".
    """
    name = name or ""
    pattern = (
        rf"<lora:{re.escape(name)}[:>]" if kind == "lora" else rf"(?<!\w){re.escape(name)}(?!\w)"
    )
    if name and not re.search(pattern, prompt, re.IGNORECASE):
        prompt = f"{prompt.rstrip()} {TAGS[kind].format(name)}".lstrip()
    return prompt, None
