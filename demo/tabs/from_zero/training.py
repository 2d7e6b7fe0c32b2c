"""Train a tiny diffusion model while the visitor watches, for one visitor at a time.

The training runs in a process of its own, on one thread. So the server can go on drawing pictures,
and the training can be stopped at once by killing the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr

from pipeline.errors import InputError

from ...page import Page
from ...server.runs import Run
from ...texts import say
from ...ui.loss_curve import loss_curve
from ...ui.status import status_line
from ...ui.stop import Final, StopButton, Updates
from . import chapter_parts
from .chapter_html import ROOT, render_figure

SECONDS = 60  # how long a training lasts
_busy = threading.Lock()  # one training at a time on this server
NOTHING = {"step": 0, "seconds": 0.0}  # stands for the report before the first one arrives


def build_card(page: Page) -> None:
    """Add the card in which the visitor trains a tiny diffusion model to the UNet's chapter.

    Also attaches the listeners of its buttons.
    """
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
        """Train a model; after each report yield updates of the status line and the samples.

        Raises InputError while another visitor's training runs.
        """
        if not _busy.acquire(blocking=False):
            raise InputError(say("zero_train_busy", language))
        training: Training | None = None
        first: dict[str, Any] | None = None
        report: dict[str, Any] = NOTHING
        try:
            training = Training(SECONDS)
            run.on_stop(training.stop)
            for report in training.reports():
                first, run.progress = first or report, report
                yield {
                    status: _line("running", report, language),
                    view: render_training(first, report, language),
                }
            yield Final({status: _line("done", report, language)})
        finally:
            if training:
                training.stop()
            _busy.release()

    stopping = StopButton(page.runs, "training", stop, status, stopped_line, waiting="zero_working")
    stopping.add(go.click, train, [], [view], concurrency_limit=None)


def stopped_line(report: dict[str, Any] | None, language: str) -> str:
    """Return the HTML status line for when the visitor has stopped the tiny model's training.

    report: the last report of the training process, with "step" and "seconds"; None if there was
    none.
    """
    return _line("stopped", report or NOTHING, language)


class Training:
    """A running process `python -m pipeline.training.tiny`, which trains a tiny diffusion model.

    It ends after `seconds`. seed: the training's random seed; None for a random one. stopped:
    whether `stop` was called.
    """

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
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def reports(self) -> Iterator[dict[str, Any]]:
        """Yield the reports of the training process until its time is over or it is stopped.

        A report has "step", "seconds", "losses" (means over 20 steps each), "distance" (of the
        model's samples to the data) and "sheet" (a PNG picture of the samples, in base64). Raises
        RuntimeError if the process fails.
        """
        assert self.process.stdout is not None  # a pipe
        for line in self.process.stdout:
            if line.endswith("\n"):  # not cut off by being stopped
                yield json.loads(line)
        if self.process.wait() and not self.stopped:
            raise RuntimeError("the training of the tiny model ended before its time")

    def stop(self) -> None:
        """Kill the training's process and wait until it has ended."""
        self.stopped = True
        self.process.kill()
        self.process.wait()


def _line(kind: str, report: dict[str, Any], language: str) -> str:
    """Return the HTML status line of the training of the tiny model: its steps and seconds.

    kind: "running", "done" or "stopped". report: a report of the process, with "step" and
    "seconds".
    """
    what = say(f"zero_train_{kind}", language, step=report["step"])
    right = say("seconds", language, seconds=report["seconds"])
    return status_line(kind, what, right, min(report["seconds"] / SECONDS, 1))


def render_training(first: dict[str, Any], report: dict[str, Any], language: str) -> str:
    """Return what the tiny model draws before its training and now as HTML, with the loss curve.

    first, report: the first report of the training process and the latest one; "sheet" is a PNG of
    samples in base64, "distance" that of the samples to the data, "losses" the losses so far.
    """
    names = "".join(
        f"<span>{name}</span>" for name in say("zero_train_shapes", language).split("|")
    )
    sheets = ""
    for key, entry in (("first", first), ("now", report)):
        caption = say(f"zero_train_{key}", language, distance=entry["distance"])
        source = f"data:image/png;base64,{entry['sheet']}"
        sheets += render_figure(source, caption, caption)
    curve = loss_curve(report["losses"], language) or '<div class="gb-loss"></div>'
    return (
        f'<div class="gb-sheets"><div class="gb-rows" aria-hidden="true">{names}</div>{sheets}'
        f"</div>{curve}"
    )
