"""A button that stops what is on its way, and says so; what is done already stays said."""

from __future__ import annotations

import time

import gradio as gr

from ..texts import request_language, say
from .listeners import UNQUEUED
from .status import status_line


def wire(stop: gr.Button, status: gr.HTML, runs: list, key: str) -> None:
    """`stop` cancels the listeners `runs`, and `status` says the text `key`."""

    def halt(now: str | None, request: gr.Request):
        if "gb-running" not in (now or ""):
            return gr.skip()
        return status_line("stopped", say(key, request_language(request)))

    # Said again: an event that was already on its way may have come after the first word.
    stop.click(halt, status, status, cancels=runs, **UNQUEUED).then(
        lambda: time.sleep(0.5), None, None, **UNQUEUED
    ).then(halt, status, status, **UNQUEUED)
