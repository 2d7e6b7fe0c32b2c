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

from pipeline.errors import InputError

from ...server.runs import Run
from ...texts import say
from ...ui.loss_curve import loss_curve
from ...ui.status import status_line
from ...ui.stop import Final, StopButton, Updates
from . import chapter_parts

SECONDS = 60
_busy = threading.Lock()  # one training at a time on this server
NOTHING = {"step": 0, "seconds": 0.0}  # in place of a look, before the first


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

    def train(run: Run, language: str) -> Updates:
        """Yield the updates of a training. It ends at once where another visitor trains."""
        if not _busy.acquire(blocking=False):
            raise InputError(say("zero_train_busy", language))
        training, first, look = None, None, NOTHING
        try:
            training = Training(SECONDS)
            run.on_stop(training.stop)
            for look in training.looks():
                first, run.progress = first or look, look
                yield {
                    status: _line("running", look, language),
                    view: shown(first, look, language),
                }
            yield Final({status: _line("done", look, language)})
        finally:
            if training:
                training.stop()
            _busy.release()

    stopping = StopButton(page.runs, "training", stop, status, stopped_line, waiting="zero_working")
    stopping.add(go.click, train, [], [view], concurrency_limit=None)


def stopped_line(look: dict | None, language: str) -> str:
    """Return the status line of a training that was stopped. look: the last one that was shown."""
    return _line("stopped", look or NOTHING, language)


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
