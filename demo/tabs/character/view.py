"""How far the training of a character is, as HTML."""

from __future__ import annotations

from html import escape

from ...texts import say
from ...ui.loss_curve import loss_curve
from ...ui.status import status_line, warning_list


def running(event, language: str, losses: list[float]) -> str:
    """The status line and, from two steps on, how the loss falls. event: a Progress."""
    if event.loss is None:
        what = say("character_class", language)
    else:
        what = say("step", language, index=event.step, total=event.total)
    right = say("seconds", language, seconds=event.seconds)
    notes = warning_list(event.notes)
    share = event.step / event.total
    return status_line("running", what, right, share, loss_curve(losses, language) + notes)


def done(event, language: str, losses: list[float]) -> str:
    """event: a Trained."""
    what = say("character_done", language, tag=escape(tag(event.name)))
    right = say("seconds", language, seconds=event.seconds)
    below = loss_curve(losses, language) + warning_list(event.notes)
    return status_line("done", what, right, 1.0, below)


def tag(name: str) -> str:
    """What puts the character into a prompt."""
    return f"<lora:{name}:0.8>"
