"""Another model: it is loaded first, and then all that follows it on the page changes."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from pipeline.model_files import library

from ..texts import request_language, say
from ..ui import theme
from ..ui.failures import FAILURES, error_sentence, error_toast, hide_internal_errors
from ..ui.listeners import PRIVATE
from ..ui.status import error_line, status_line
from . import menus, sampler_menu, vocabulary

LOAD = {"concurrency_id": "load", "concurrency_limit": 1}  # a model at a time
NUMBERS = ("steps", "cfg", "width", "height")  # a model's own, beside sampler and schedule


def wire(page, status, additions: dict, knows: tuple) -> Callable:
    """Make the model's dropdown work; returns `after(listen)`, for whoever else sets it.

    A model that cannot be had gets its sentence in `status`, and the one before stays chosen.
    """
    form, model_cache = page.form, page.model_cache
    box, now = form["model"], gr.State(model_cache.first.name)
    followers = [page.head, *knows, *additions.values()]

    def around(name: str, models, language: str) -> dict:
        updates = [theme.header(say("tagline", language), models)]
        updates += vocabulary.shown(models.vocabulary, language)
        updates += menus.additions(model_cache, name, language)
        return dict(zip(followers, updates, strict=True))

    def arrive(request: gr.Request):
        """Files may have come since the server started, and the language is known only now."""
        first = model_cache.first
        page.embeddings = {n: e.path for n, e in library.find_entries("embedding").items()}
        language = request_language(request)
        choices = gr.update(choices=menus.labels(model_cache.choices()))
        others = gr.update(
            choices=menus.vaes(model_cache, language), visible=bool(model_cache.vaes())
        )
        return {box: choices, form["vae"]: others} | around(first.name, first, language)

    def wait(name: str, before: str, request: gr.Request):
        if name == before:
            return gr.skip()
        return status_line("running", say("model_loading", request_language(request), name=name))

    def load(own: bool):
        def handler(name: str, before: str, request: gr.Request):
            if name == before:
                yield {now: before}
                return
            language = request_language(request)
            try:
                with hide_internal_errors():
                    models = model_cache.get(name)
            except FAILURES as error:
                sentence = error_sentence(error, language)
                yield {status: error_line(sentence), box: before}
                raise error_toast(sentence, language) from None
            page.tokenizers[name] = models.tokenizer
            ready = status_line("ready", say("model_ready", language, name=name))
            updates = {
                now: name,
                box: gr.update(info=menus.about(model_cache, name)),
                status: ready,
            }
            updates |= around(name, models, language)
            if own:
                usual = models.defaults
                updates |= {form[key]: usual[key] for key in NUMBERS}
                pair = sampler_menu.updates(page.i18n, usual["sampler"], usual["schedule"])
                updates |= {form[key]: update for key, update in pair.items()}
            yield updates

        return handler

    def after(listen: Callable, own: bool = False):
        """Load what the dropdown then holds; `own`: and take over the model's own settings.

        listen: an event such as `box.input`, or the `then` of one.
        """
        outputs = [status, now, box, *followers, *(form[k] for k in (*sampler_menu.PAIR, *NUMBERS))]
        listen(wait, [box, now], status, queue=False, **PRIVATE).then(
            load(own), [box, now], outputs, **PRIVATE, **LOAD
        )

    gr.on(None, arrive, None, [box, form["vae"], *followers], queue=False, **PRIVATE)
    after(box.input, own=True)
    return after
