"""Load the model chosen in the menu, then update the components that depend on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipeline.model_files import library

from ..server.visitors import identify
from ..texts import request_language, say
from ..ui import theme
from ..ui.failures import FAILURES, error_sentence, error_toast, hide_internal_errors
from ..ui.listeners import PRIVATE, UNQUEUED
from ..ui.refusal import show_refusal
from ..ui.status import error_line, status_line
from . import menus, sampler_menu, vocabulary

if TYPE_CHECKING:
    from pipeline.model import Models

    from ..page import Page

# Arguments of Gradio listeners: one model is loaded at a time.
LOAD: dict[str, Any] = {"concurrency_id": "load", "concurrency_limit": 1}
# Fields for which a model has a default, besides sampler and schedule.
NUMBERS = ("steps", "cfg", "width", "height")


def wire(
    page: Page,
    status: gr.HTML,
    additions: dict[str, gr.Dropdown],
    vocabulary_panel: tuple[gr.Accordion, gr.HTML],
) -> Callable[..., None]:
    """Make the menu of models load the chosen model and update what depends on it.

    Returns load_after(event, defaults=False), by which other events that set the menu, such as a
    button that fills the form, load its model too; with `defaults`, its default settings are put
    into the form. If a model cannot be loaded, the status line says why and the old one stays
    chosen.
    additions: {"lora": menu, "embedding": menu}
    vocabulary_panel: the components from `vocabulary.build_panel`
    """
    form, model_cache = page.form, page.model_cache
    menu, current = form["model"], gr.State(model_cache.first.name)
    dependents = [page.head, *vocabulary_panel, *additions.values()]

    def dependent_updates(name: str, models: Models, request: gr.Request) -> dict[Any, Any]:
        language = request_language(request)
        loras = page.runner.visitors.lora_folder(identify(request))
        updates = [
            theme.header(say("tagline", language), models),
            *vocabulary.panel_updates(models.vocabulary, language),
            *menus.addition_updates(model_cache, name, language, loras),
        ]
        return dict(zip(dependents, updates, strict=True))

    def open_page(request: gr.Request) -> dict[Any, Any]:
        """Fill the menus when the page opens, from the model files that are there now."""
        first = model_cache.first
        page.embeddings = {n: e.path for n, e in library.find_entries("embedding").items()}
        language = request_language(request)
        models = gr.update(choices=menus.choice_labels(model_cache.choices()))
        vaes = gr.update(
            choices=menus.vae_choices(model_cache, language), visible=bool(model_cache.vaes())
        )
        updates = {menu: models, form["vae"]: vaes}
        return updates | dependent_updates(first.name, first, request)

    def say_loading(name: str, before: str, request: gr.Request) -> Any:
        if name == before:
            return gr.skip()
        return status_line("running", say("model_loading", request_language(request), name=name))

    def load(name: str, before: str, request: gr.Request, defaults: bool) -> Iterator[dict]:
        if name == before:
            yield {current: before}
            return
        language = request_language(request)
        try:
            with hide_internal_errors():
                models = model_cache.get(name)
        except FAILURES as error:
            sentence = error_sentence(error, language)
            yield {status: error_line(sentence), menu: before}
            raise error_toast(sentence, language) from None
        page.tokenizers[name] = models.tokenizer
        updates: dict[Any, Any] = {
            current: name,
            menu: gr.update(info=menus.describe_checkpoint(model_cache, name)),
            status: status_line("ready", say("model_ready", language, name=name)),
        }
        updates |= dependent_updates(name, models, request)
        if defaults:
            values = models.defaults
            updates |= {form[key]: values[key] for key in NUMBERS}
            pair = sampler_menu.pair_updates(page.i18n, values["sampler"], values["schedule"])
            updates |= {form[key]: update for key, update in pair.items()}
        yield updates

    def load_with_settings(name: str, before: str, request: gr.Request) -> Iterator[dict]:
        yield from load(name, before, request, defaults=True)

    def load_alone(name: str, before: str, request: gr.Request) -> Iterator[dict]:
        yield from load(name, before, request, defaults=False)

    def load_after(event: Callable[..., Any], defaults: bool = False) -> None:
        """Load the menu's model whenever `event` happens.

        event: a Gradio event such as `menu.input` or `button.click(...).then`.
        defaults: also put the model's default settings into the form.
        """
        fields = (*sampler_menu.PAIR, *NUMBERS)
        outputs = [status, current, menu, *dependents, *(form[key] for key in fields)]
        loading = event(say_loading, [menu, current], status, **UNQUEUED).then(
            load_with_settings if defaults else load_alone,
            [menu, current],
            outputs,
            **PRIVATE,
            **LOAD,
        )
        show_refusal(loading, page.runs.refusals, status)

    gr.on(None, open_page, None, [menu, form["vae"], *dependents], **UNQUEUED)
    load_after(menu.input, defaults=True)  # type: ignore[attr-defined]  # Gradio adds events
    return load_after
