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
    """Return the HTML status line of a running verification, with a mark for each step below it.

    A verification draws a picture again and compares the latents of each step with those recorded
    in its file. event: the step just compared. same: whether the latents were identical: the
    initial ones, then after each step so far.
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
    """Return the result of verifying a picture, for which it was drawn again, as HTML.

    It has the verdict ("Identical", ...) and sentences, a mark for each step, the picture drawn
    again, the difference image, and a table of what has changed in the environment.
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
    """Return the sentences that state the result of verifying a picture, such as what differs.

    language: "en" or "zh".
    """
    return [say(f"said_{key}", language, **values) for key, values in verdict.facts]


def render_note(words: str) -> str:
    """Return a paragraph in the grey style of hints. words: its content, HTML."""
    return f'<p class="gb-note gb-not">{words}</p>'


def _cells(same: Sequence[bool], count: int, language: str) -> str:
    """Return an HTML list with a mark for each step of a picture that is drawn again to verify it.

    A mark says whether the latents are the same as in the first drawing; number 0 stands for the
    initial latents. same: the results so far, from number 0. count: the number of marks; those
    without a result yet are shown as open.
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
    """Return the picture drawn again and the image of its differences from the file as HTML.

    verdict: the result of verifying the file. Returns "" if it lacks one of the two images, as when
    nothing was drawn or nothing differs.
    """
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
    """Return an HTML table of what is not as when the picture was drawn, with both values.

    It compares device, backends, versions and model files with the receipt, the record in the
    picture's file.
    """
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
    """Return the heading of a table row on something that verification compares, as HTML.

    what: a key such as "device", for which the name in the visitor's language is returned
    ("Device"). Any other name, such as that of a package, is returned itself.
    """
    key = f"around_{what}"
    return say(key, language) if key in TEXTS else escape(what)
