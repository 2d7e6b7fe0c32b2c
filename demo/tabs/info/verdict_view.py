"""The verdict on a picture and the progress towards it, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.metadata.verdict import Verdict
from pipeline.verify import StepChecked

from ...texts import TEXTS, say
from ...ui.images import data_url
from ...ui.status import status_line

PICTURE_SIDE = 384  # pixels: of the pictures in a verdict
MARKS = {"identical": "✓", "departs": "≠", "tampered": "✕", "other": "?"}


def render_progress(event: StepChecked, same: Sequence[bool], language: str) -> str:
    """Return the status line during a verification, and a cell for each step."""
    words = say(
        "verify_same" if event.same else "verify_apart",
        language,
        step=event.step,
        total=event.total,
    )
    line = status_line("running", words, share=event.step / max(event.total, 1))
    return f'{line}<div class="gb-verdict">{_cells(same, event.total + 1, language)}</div>'


def render_verdict(verdict: Verdict, language: str) -> str:
    """Return the verdict: its word, its sentences, the steps, and how the environment differs."""
    space = "" if language == "zh" else " "
    said = space.join(escape(sentence) for sentence in verdict_sentences(verdict, language))
    return (
        f'<div class="gb-verdict gb-verdict-{verdict.kind}" role="status">'
        f'<p class="gb-verdict-word"><span aria-hidden="true">{MARKS[verdict.kind]}</span> '
        f"{say(f'verdict_{verdict.kind}', language)}</p>"
        f'<p class="gb-verdict-said">{said}</p>'
        f"{_cells(verdict.same, len(verdict.same), language)}{_pictures(verdict, language)}"
        f"{_environment(verdict, language)}</div>"
    )


def verdict_sentences(verdict: Verdict, language: str) -> list[str]:
    """Return the sentences of a verdict in the visitor's language."""
    return [say(f"said_{key}", language, **values) for key, values in verdict.facts]


def render_note(words: str) -> str:
    """Return a quiet paragraph. words: HTML."""
    return f'<p class="gb-note gb-not">{words}</p>'


def _cells(same: Sequence[bool], count: int, language: str) -> str:
    """Return a cell for the initial latents, 0, and for each step."""
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
    """Return the picture made again and the difference image; "" where nothing differs."""
    if verdict.image is None or verdict.difference is None:
        return ""
    shown = {"verify_again": verdict.image, "verify_difference": verdict.difference}
    figures = "".join(
        f'<figure><img src="{data_url(image, PICTURE_SIDE)}" alt="{say(key, language)}">'
        f"<figcaption>{say(key, language)}</figcaption></figure>"
        for key, image in shown.items()
    )
    return f'<div class="gb-remade">{figures}</div>'


def _environment(verdict: Verdict, language: str) -> str:
    """Return how device, backends, versions and files differ from the receipt's."""
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
    """Return the name of a row of the environment; a file's own name as it is."""
    key = f"around_{what}"
    return say(key, language) if key in TEXTS else escape(what)
