"""Render the progress of a LoRA training as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from ...texts import say
from ...ui.loss_curve import loss_curve
from ...ui.status import status_line, warning_list

if TYPE_CHECKING:
    from pipeline.training.lora.train import Progress, Trained


def progress_line(event: Progress, language: str, losses: Sequence[float]) -> str:
    """Return the HTML status line of a running LoRA training: its loss curve and warnings below.

    losses: the running mean of the loss, one value after each step.
    """
    if event.loss is None:
        what = say("character_class", language)
    else:
        what = say("step", language, index=event.step, total=event.total)
    right = say("seconds", language, seconds=event.seconds)
    below = loss_curve(losses, language) + warning_list(event.notes)
    return status_line("running", what, right, event.step / event.total, below)


def done_line(event: Trained, language: str, losses: Sequence[float]) -> str:
    """Return the HTML status line of a finished LoRA training: its loss curve and warnings below.

    It names the tag, such as <lora:zog:0.8>, that applies the LoRA in a prompt. losses: the running
    mean of the loss, one value after each step.
    """
    what = say("character_done", language, tag=escape(lora_tag(event.name)))
    right = say("seconds", language, seconds=event.seconds)
    below = loss_curve(losses, language) + warning_list(event.notes)
    return status_line("done", what, right, 1.0, below)


def stopped_line(event: Progress | None, language: str) -> str:
    """Return the HTML status line of a LoRA training that the visitor has stopped.

    event: the training's last Progress; None if it was stopped before the first step.
    """
    if event is None:
        return status_line("stopped", say("stopped_early", language))
    return status_line("stopped", say("character_stopped", language, step=event.step))


def lora_tag(name: str) -> str:
    """Return the text <lora:NAME:0.8>, which in a prompt applies the LoRA `name` at weight 0.8."""
    return f"<lora:{name}:0.8>"
