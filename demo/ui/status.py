"""The picture while it comes about, and the line under it, as HTML."""

from __future__ import annotations

from html import escape

from ..server.runner import Finished, Progress
from ..texts import say

CUBE = (
    '<svg viewBox="0 0 48 48" fill="none" stroke="currentColor" stroke-width="2" '
    'stroke-linejoin="round" aria-hidden="true">'
    '<path d="M24 4 42 14v20L24 44 6 34V14Z"/><path d="M6 14l18 10 18-10M24 24v20" opacity=".55"/>'
    '<path d="M24 4v20M6 34l18-10 18 10" opacity=".2"/></svg>'
)


def idle(hint: str) -> str:
    """The empty frame. `hint` is a text of the page (gr.I18n)."""
    return f'<div class="gb-stage gb-idle">{CUBE}<p>{hint}</p></div>'


def live(event: Progress, language: str) -> str:
    alt = say("preview_alt", language)
    return f'<div class="gb-stage gb-live"><img src="{event.preview}" alt="{alt}"></div>'


def shown() -> str:
    """Nothing: the gallery behind it is seen."""
    return '<div class="gb-stage gb-shown"></div>'


def line(kind: str, what: str, right: str = "", share: float = 0.0, below: str = "") -> str:
    """The status line. kind: ready, running, done, stopped or error; share: 0..1 of the bar;
    below: HTML under it."""
    return (
        f'<div class="gb-status gb-{kind}" role="status">'
        f'<div class="gb-bar"><i style="width:{share:.1%}"></i></div>'
        f'<div class="gb-line"><span>{what}</span>'
        f'<span class="gb-time">{escape(right)}</span></div>{below}</div>'
    )


def sorry(sentence: str) -> str:
    """What is wrong, where a result would stand."""
    return f'<p class="gb-sorry" role="alert">{escape(sentence)}</p>'


def warnings(sentences) -> str:
    """A quiet list of what was asked for and not done."""
    rows = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="gb-warnings">{rows}</ul>' if rows else ""


def running(event: Progress, language: str) -> str:
    what = say("step", language, index=event.index, total=event.total)
    if event.count > 1:
        of = say("picture", language, image=event.image, count=event.count)
        what = f"{of} · {what}"
    share = (event.image - 1 + event.index / event.total) / event.count
    return line("running", what, say("seconds", language, seconds=event.seconds), share)


def done(event: Finished, language: str) -> str:
    count = len(event.files)
    what = say("done", language) if count == 1 else say("done_many", language, count=count)
    seconds = say("seconds", language, seconds=event.seconds)
    right = f"{seconds} · {event.ran_on}" if event.ran_on else seconds
    return line("done", what, right, 1.0, warnings(event.warnings))


def stopped(event: Progress | None, language: str) -> str:
    if event is None:
        return line("stopped", say("stopped_early", language))
    what = say("stopped", language, index=event.index, total=event.total)
    share = (event.image - 1 + event.index / event.total) / event.count
    return line("stopped", what, say("seconds", language, seconds=event.seconds), share)


def error(sentence: str) -> str:
    return line("error", escape(sentence))
