"""Build as HTML the frame that shows a picture while it is drawn, and the status line under it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ..events import Finished, Progress
from ..texts import say
from .failures import hide_paths

CUBE = (
    '<svg viewBox="0 0 48 48" fill="none" stroke="currentColor" stroke-width="2" '
    'stroke-linejoin="round" aria-hidden="true">'
    '<path d="M24 4 42 14v20L24 44 6 34V14Z"/><path d="M6 14l18 10 18-10M24 24v20" opacity=".55"/>'
    '<path d="M24 4v20M6 34l18-10 18 10" opacity=".2"/></svg>'
)


def idle_frame(hint: object) -> str:
    """Return what stands in place of the pictures before any is drawn: a logo and a hint, as HTML.

    hint: the hint's text, from gr.I18n.
    """
    return f'<div class="gb-stage gb-idle">{CUBE}<p>{hint}</p></div>'


def preview_frame(source: str, alt: str) -> str:
    """Return the preview that covers the gallery while a picture is drawn, as HTML.

    source: the preview's data URL; alt: its text alternative.
    """
    return f'<div class="gb-stage gb-live"><img src="{source}" alt="{alt}"></div>'


def empty_frame() -> str:
    """Return an invisible HTML element in place of the preview, so that the gallery can be seen."""
    return '<div class="gb-stage gb-shown"></div>'


def status_line(
    kind: str, what: object, right: str = "", share: float = 0.0, below: str = ""
) -> str:
    """Return a status line as HTML: a progress bar with a text under it.

    kind: "ready", "running", "done", "stopped" or "error", on which its colours depend
    what: HTML of the text on the left; right: plain text on the right, such as the time
    share: 0..1, how much of the bar is filled
    below: HTML under the line, such as warnings
    """
    return (
        f'<div class="gb-status gb-{kind}" role="status">'
        f'<div class="gb-bar"><i style="width:{share:.1%}"></i></div>'
        f'<div class="gb-line"><span>{what}</span>'
        f'<span class="gb-time">{escape(right)}</span></div>{below}</div>'
    )


def error_paragraph(sentence: str) -> str:
    """Return an error sentence as an HTML paragraph, to be shown in place of a result."""
    return f'<p class="gb-sorry" role="alert">{escape(hide_paths(sentence))}</p>'


def warning_list(sentences: Iterable[str]) -> str:
    """Return warnings as an HTML list; "" for no warnings."""
    rows = "".join(f"<li>{escape(hide_paths(sentence))}</li>" for sentence in sentences)
    return f'<ul class="gb-warnings">{rows}</ul>' if rows else ""


def progress_line(event: Progress, language: str) -> str:
    """Return the HTML status line after a sampling step: picture, step, seconds, progress bar.

    language: "en" or "zh".
    """
    what = say("step", language, index=event.index, total=event.total)
    if event.count > 1:
        of = say("picture", language, image=event.image, count=event.count)
        what = f"{of} · {what}"
    right = say("seconds", language, seconds=event.seconds)
    return status_line("running", what, right, _share(event))


def done_line(event: Finished, language: str) -> str:
    """Return the HTML status line of a finished request: its time, where it ran, its warnings."""
    count = len(event.files)
    what = say("done", language) if count == 1 else say("done_many", language, count=count)
    seconds = say("seconds", language, seconds=event.seconds)
    right = f"{seconds} · {event.ran_on}" if event.ran_on else seconds
    return status_line("done", what, right, 1.0, warning_list(event.warnings))


def stopped_line(event: Progress | None, language: str) -> str:
    """Return the HTML status line of a request for pictures that the visitor has stopped.

    event: the request's last Progress; None if it was stopped before the first step.
    """
    if event is None:
        return status_line("stopped", say("stopped_early", language))
    what = say("stopped", language, index=event.index, total=event.total)
    right = say("seconds", language, seconds=event.seconds)
    return status_line("stopped", what, right, _share(event))


def error_line(sentence: str) -> str:
    """Return the HTML status line of a failed request. sentence: the error, plain text."""
    return status_line("error", escape(hide_paths(sentence)))


def _share(event: Progress) -> float:
    """Return which share (0..1) of a request's sampling steps is done, over all of its pictures."""
    return (event.image - 1 + event.index / event.total) / event.count
