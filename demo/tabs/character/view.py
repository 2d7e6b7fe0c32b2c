"""How far the training of a character is, as HTML."""

from __future__ import annotations

from html import escape

from ...texts import say
from ...ui import status
from ...ui.loss_curve import loss_curve


def running(event, language: str, losses: list[float]) -> str:
    """The status line and, from two steps on, how the loss falls. event: a Progress."""
    if event.loss is None:
        what = say("character_class", language)
    else:
        what = say("step", language, index=event.step, total=event.total)
    right = say("seconds", language, seconds=event.seconds)
    notes = status.warnings(event.notes)
    share = event.step / event.total
    return status.line("running", what, right, share, loss_curve(losses, language) + notes)


def done(event, language: str, losses: list[float]) -> str:
    """event: a Trained."""
    what = say("character_done", language, tag=escape(tag(event.name)))
    right = say("seconds", language, seconds=event.seconds)
    below = loss_curve(losses, language) + status.warnings(event.notes)
    return status.line("done", what, right, 1.0, below)


def tag(name: str) -> str:
    """What puts the character into a prompt."""
    return f"<lora:{name}:0.8>"
