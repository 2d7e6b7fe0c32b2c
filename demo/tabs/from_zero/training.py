"""A tiny diffusion model that learns in front of the visitor, one visitor at a time.

It runs in a process of its own with one thread, so that pictures are drawn beside it, and so that
it stops at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import gradio as gr

from ...events import Broken
from ...texts import request_language, say
from ...ui.failures import error_sentence, hide_internal_errors
from ...ui.listeners import PRIVATE, UNQUEUED
from ...ui.loss_curve import loss_curve
from ...ui.status import error_line, status_line
from . import chapter_parts

SECONDS = 60
_busy = threading.Lock()  # one training at a time on this server
_running: dict[str, Training] = {}  # by the visitor's session


def card(page) -> None:
    """The last card of the chapter."""
    i18n = page.i18n
    with gr.Column(elem_classes="gb-card", min_width=0):
        chapter_parts.prose(i18n, "zero_train_title", "zero_train_game", "zero_train_tiny")
        with gr.Row(elem_classes="gb-ask-row"):
            go = gr.Button(
                i18n("zero_train"), variant="primary", elem_id="zero-train", scale=4, min_width=120
            )
            stop = gr.Button(i18n("stop"), variant="stop", elem_id="zero-train-stop", min_width=90)
        status = chapter_parts.status(i18n, "zero-train-status")
        view = chapter_parts.html(elem_id="zero-train-view")

    def run(request: gr.Request):
        """Streams what the training says. Another visitor's goes on untouched."""
        language = request_language(request)
        if not _busy.acquire(blocking=False):
            yield {status: error_line(say("zero_train_busy", language))}
            return
        training, first, look = None, None, {"step": 0, "seconds": 0.0}
        try:
            with hide_internal_errors():
                training = _running[request.session_hash] = Training(SECONDS)
                yield {status: status_line("running", say("zero_working", language))}
                for look in training.looks():
                    first = first or look
                    yield {
                        status: _line("running", look, language),
                        view: shown(first, look, language),
                    }
                kind = "stopped" if training.stopped else "done"
                yield {status: _line(kind, look, language)}
        except Broken as error:
            yield {status: error_line(error_sentence(error, language))}
        finally:
            _running.pop(request.session_hash, None)
            if training:
                training.stop()
            _busy.release()

    def halt(request: gr.Request):
        training = _running.get(request.session_hash)
        if training:
            training.stop()

    go.click(run, None, [status, view], concurrency_limit=None, trigger_mode="once", **PRIVATE)
    stop.click(halt, None, None, **UNQUEUED)


class Training:
    """The process of one training, see pipeline.training.tiny."""

    def __init__(self, seconds: float, seed: int | None = None):
        seed = int.from_bytes(os.urandom(3)) if seed is None else seed
        self.stopped = False
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pipeline.training.tiny",
                f"--seconds={seconds}",
                f"--seed={seed}",
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=chapter_parts.ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def looks(self) -> Iterator[dict]:
        """Its looks as they come, until its time is over or it is stopped."""
        for line in self.process.stdout:
            if line.endswith("\n"):  # not cut off by being stopped
                yield json.loads(line)
        if self.process.wait() and not self.stopped:
            raise RuntimeError("the training of the tiny model ended before its time")

    def stop(self) -> None:
        """At once, wherever it is."""
        self.stopped = True
        self.process.kill()
        self.process.wait()


def _line(kind: str, look: dict, language: str) -> str:
    """The status line: how many steps were learned, in how many seconds."""
    what = say(f"zero_train_{kind}", language, step=look["step"])
    right = say("seconds", language, seconds=look["seconds"])
    return status_line(kind, what, right, min(look["seconds"] / SECONDS, 1))


def shown(first: dict, look: dict, language: str) -> str:
    """Samples at first and now, how far they are from the data, and how the loss falls."""
    names = "".join(
        f"<span>{name}</span>" for name in say("zero_train_shapes", language).split("|")
    )
    sheets = ""
    for when, one in (("first", first), ("now", look)):
        words = say(f"zero_train_{when}", language, distance=one["distance"])
        source = f"data:image/png;base64,{one['sheet']}"
        sheets += chapter_parts.figure(source, words, words)
    curve = loss_curve(look["losses"], language) or '<div class="gb-loss"></div>'
    return (
        f'<div class="gb-sheets"><div class="gb-rows" aria-hidden="true">{names}</div>{sheets}'
        f"</div>{curve}"
    )
