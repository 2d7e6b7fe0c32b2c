"""A button that stops what is on its way, and says so; what is done already stays said."""

from __future__ import annotations

import time

import gradio as gr

from ..texts import request_language, say
from . import status as stage

PRIVATE = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


def wire(stop: gr.Button, status: gr.HTML, runs: list, key: str) -> None:
    """`stop` cancels the listeners `runs`, and `status` says the text `key`."""

    def halt(now: str | None, request: gr.Request):
        if "gb-running" not in (now or ""):
            return gr.skip()
        return stage.line("stopped", say(key, request_language(request)))

    # Said again: an event that was already on its way may have come after the first word.
    stop.click(halt, status, status, cancels=runs, **PRIVATE).then(
        lambda: time.sleep(0.5), None, None, **PRIVATE
    ).then(halt, status, status, **PRIVATE)
