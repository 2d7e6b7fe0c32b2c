"""Render the verdict on a verified picture, and the progress until then, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.metadata.verdict import Verdict
from pipeline.verify import StepChecked

from ...texts import TEXTS, say
from ...ui.images import data_url
from ...ui.status import status_line

PICTURE_SIDE = 384  # pixels: the longer side of the pictures in a verdict
# By kind of verdict, see pipeline/metadata/verdict.py.
MARKS = {"identical": "✓", "departs": "≠", "tampered": "✕", "other": "?"}


def render_progress(event: StepChecked, same: Sequence[bool], language: str) -> str:
    """Return the status line of a running verification, and a mark for each step.

    same: whether the latents came out identical, initially and after each step so far.
    """
    words = say(
        "verify_same" if event.same else "verify_apart",
        language,
        step=event.step,
        total=event.total,
    )
    line = status_line("running", words, share=event.step / max(event.total, 1))
    return f'{line}<div class="gb-verdict">{_cells(same, event.total + 1, language)}</div>'


def render_verdict(verdict: Verdict, language: str) -> str:
    """Return a verdict as HTML.

    It has its name and sentences, a mark for each step, the picture drawn again, the difference
    image, and a table of what has changed in the environment.
    """
    space = "" if language == "zh" else " "
    sentences = space.join(escape(sentence) for sentence in verdict_sentences(verdict, language))
    return (
        f'<div class="gb-verdict gb-verdict-{verdict.kind}" role="status">'
        f'<p class="gb-verdict-word"><span aria-hidden="true">{MARKS[verdict.kind]}</span> '
        f"{say(f'verdict_{verdict.kind}', language)}</p>"
        f'<p class="gb-verdict-said">{sentences}</p>'
        f"{_cells(verdict.same, len(verdict.same), language)}{_pictures(verdict, language)}"
        f"{_environment(verdict, language)}</div>"
    )


def verdict_sentences(verdict: Verdict, language: str) -> list[str]:
    """Return the sentences that state the facts of a verdict in a language, "en" or "zh"."""
    return [say(f"said_{key}", language, **values) for key, values in verdict.facts]


def render_note(words: str) -> str:
    """Return a paragraph in the style of a note. words: its content, HTML."""
    return f'<p class="gb-note gb-not">{words}</p>'


def _cells(same: Sequence[bool], count: int, language: str) -> str:
    """Return a list with a mark for the initial latents (number 0) and for each step.

    same: whether the latents at each came out identical, as far as they are checked yet. count: the
    number of marks.
    """
    if not count:
        return ""
    cells = []
    for step in range(count):
        kind = "open" if step >= len(same) else "same" if same[step] else "apart"
        label = say(f"verify_step_{kind}", language, step=step)
        cells.append(f'<li class="gb-{kind}" title="{label}" aria-label="{label}">{step}</li>')
    title = say("verify_steps", language)
    return f'<div><h3>{title}</h3><ol class="gb-marks">{"".join(cells)}</ol></div>'


def _pictures(verdict: Verdict, language: str) -> str:
    """Return the picture drawn again and the difference image as HTML; "" if they are missing."""
    if verdict.image is None or verdict.difference is None:
        return ""
    images = {"verify_again": verdict.image, "verify_difference": verdict.difference}
    figures = "".join(
        f'<figure><img src="{data_url(image, PICTURE_SIDE)}" alt="{say(key, language)}">'
        f"<figcaption>{say(key, language)}</figcaption></figure>"
        for key, image in images.items()
    )
    return f'<div class="gb-remade">{figures}</div>'


def _environment(verdict: Verdict, language: str) -> str:
    """Return a table of what differs from the receipt: device, backends, versions, files."""
    if not verdict.environment:
        return render_note(say("around_same", language)) if verdict.same else ""
    rows = "".join(
        f'<tr><th scope="row">{_label(row.what, language)}</th>'
        f"<td>{escape(row.then) or '–'}</td><td>{escape(row.now) or '–'}</td></tr>"
        for row in verdict.environment
    )
    heads = "".join(f'<th scope="col">{say(f"around_{k}", language)}</th>' for k in ("then", "now"))
    return (
        f'<table class="gb-around"><thead><tr><th scope="col">{say("around_title", language)}</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _label(what: str, language: str) -> str:
    """Return the translated name of a part of the environment; a file name stays as it is."""
    key = f"around_{what}"
    return say(key, language) if key in TEXTS else escape(what)
