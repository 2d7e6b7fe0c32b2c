"""How far the training of a character is, as HTML."""

from __future__ import annotations

from html import escape

from ...texts import say
from ...ui.status import status_line, warning_list

CURVE = (320, 60)  # the picture of the loss, in its own units


def running(event, language: str, losses: list[float]) -> str:
    """The status line and, from two steps on, how the loss falls. event: a Progress."""
    if event.loss is None:
        what = say("character_class", language)
    else:
        what = say("step", language, index=event.step, total=event.total)
    right = say("seconds", language, seconds=event.seconds)
    notes = warning_list(event.notes)
    share = event.step / event.total
    return status_line("running", what, right, share, curve(losses, language) + notes)


def done(event, language: str, losses: list[float]) -> str:
    """event: a Trained."""
    what = say("character_done", language, tag=escape(tag(event.name)))
    right = say("seconds", language, seconds=event.seconds)
    below = curve(losses, language) + warning_list(event.notes)
    return status_line("done", what, right, 1.0, below)


def tag(name: str) -> str:
    """What puts the character into a prompt."""
    return f"<lora:{name}:0.8>"


def curve(losses: list[float], language: str) -> str:
    """The mean loss over the steps, as a line."""
    if len(losses) < 2:
        return ""
    width, height = CURVE
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0
    points = " ".join(
        f"{i * width / (len(losses) - 1):.1f},{height - (x - low) / span * height:.1f}"
        for i, x in enumerate(losses)
    )
    alt = say("character_loss", language, first=losses[0], last=losses[-1])
    return (
        f'<figure class="gb-loss"><svg viewBox="-2 -2 {width + 4} {height + 4}" role="img"'
        f' aria-label="{alt}" preserveAspectRatio="none"><polyline points="{points}"/></svg>'
        f"<figcaption>{alt}</figcaption></figure>"
    )
