"""Verify: a picture is made again as its receipt says, and the verdict is shown; see
pipeline/verify.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from pipeline import verify
from pipeline.errors import InputError
from pipeline.metadata import containers, receipt
from pipeline.metadata.verdict import Verdict
from pipeline.verify import StepChecked

from ...texts import TEXTS, request_language, say
from ...ui.failures import (
    FAILURES,
    error_sentence,
    hide_internal_errors,
    raise_client_errors,
)
from ...ui.images import data_url
from ...ui.listeners import GPU, PRIVATE, UNQUEUED
from ...ui.status import error_paragraph, status_line
from ...ui.upload import PictureBox

SIDE = 384  # pixels: of the pictures in a verdict
EVERY = 0.05  # seconds between two words on its progress
MARKS = {"identical": "✓", "departs": "≠", "tampered": "✕", "other": "?"}
Verifier = Callable[..., Iterator[StepChecked | Verdict]]


def verifier(model_cache, on_device: Callable) -> Verifier:
    """The server's one way to verdicts: `run(path, picture=..., mask=...)`, closed to stop it.

    on_device: the runner's. The iterator raises InputError for what the user can
    mend, and Broken for the rest.
    """

    @on_device
    def work(task: str, asked, names: tuple, case) -> Iterator[StepChecked | Verdict]:
        yield from verify.check(model_cache.get(*names), case)

    def run(path: str, **given: Any) -> Iterator[StepChecked | Verdict]:
        with hide_internal_errors():
            case = verify.open_input(path, **given)
            then = case.receipt
            if not then.intact:
                yield from verify.check(None, case)
                return
            there = [e.name for e in model_cache.choices()], [e.name for e in model_cache.vaes()]
            names = verify.choose_model(then, *there, model_cache.hashes())
            model_cache.get(*names)
        yield from work(then.task, case.options, names, case)

    return run


@dataclass(frozen=True)
class Panel:
    """The receipt's part of the tab PNG info."""

    column: Any
    about: Any
    given: dict[str, Any]  # by option, where the pictures go that it began from
    button: Any
    verdict: Any

    @property
    def outputs(self) -> list:
        return [self.column, self.about, *self.given.values(), self.button, self.verdict]

    def opened(self, path: str | None, language: str) -> dict:
        """Updates for the file that is shown now, or none."""
        hidden = gr.update(visible=False)
        updates = {self.column: gr.update(visible=path is not None), self.verdict: ""}
        updates |= {self.button: hidden} | dict.fromkeys(self.given.values(), hidden)
        if path is None:
            return updates
        try:
            then = receipt.read(path)
        except InputError as error:
            damaged = receipt.KEYWORD in containers.read_texts(path, receipt.KEYWORD)
            said = error_paragraph(str(error)) if damaged else _note(say("verify_none", language))
            return updates | {self.about: said}
        steps = max(len(then.steps) - 1, 0)
        said = _note(say("verify_offer", language, model=escape(then.model_label), steps=steps))
        if then.inputs:
            said += _note(say("verify_needs", language))
        wanted = {
            box: gr.update(value=None, visible=name in then.inputs)
            for name, box in self.given.items()
        }
        return updates | {self.about: said, self.button: gr.update(visible=True)} | wanted


def panel(page, file, verify: Verifier) -> Panel:
    """Build the receipt's part inside the tab, and wire its button. file: the path's gr.State."""
    i18n = page.i18n
    with gr.Column(visible=False, min_width=0, elem_id="info-receipt") as column:
        gr.HTML(f'<h2 class="gb-title">{i18n("verify_title")}</h2>', apply_default_css=False)
        about = gr.HTML(apply_default_css=False, elem_id="info-receipt-about")
        with gr.Row():
            given = {
                name: PictureBox(
                    label=i18n(f"verify_{name}"),
                    sources=["upload", "clipboard"],
                    height=150,
                    buttons=[],
                    visible=False,
                    elem_id=f"info-verify-{name}",
                    elem_classes=["gb-picture"],
                )
                for name in receipt.INPUT_PICTURES
            }
        button = gr.Button(i18n("verify"), variant="primary", elem_id="info-verify", scale=0)
        verdict = gr.HTML(apply_default_css=False, elem_id="info-verdict")

    def wait(request: gr.Request):
        return status_line("running", say("waiting", request_language(request)))

    def run(request: gr.Request, path: str, *pictures):
        language, shown = request_language(request), 0.0
        same: list[bool] = []
        try:
            for event in verify(path, **dict(zip(given, pictures, strict=True))):
                if isinstance(event, Verdict):
                    yield card(event, language)
                    continue
                same += [event.same] * (event.step + 1 - len(same))
                if time.monotonic() - shown >= EVERY:
                    shown = time.monotonic()
                    yield progress(event, same, language)
        except FAILURES as error:
            yield error_paragraph(error_sentence(error, language, upload=path))

    button.click(wait, None, verdict, trigger_mode="once", **UNQUEUED).then(
        run, [file, *given.values()], verdict, **PRIVATE, **GPU
    )
    return Panel(column, about, given, button, verdict)


def endpoint(verifying: Verifier) -> None:
    """Add /verify to the page being built; its components are never shown."""

    def verify(file, picture=None, mask=None):
        """Make a picture again as its receipt says, and compare it step by step.

        Args:
            file: A PNG with its receipt, as it was saved.
            picture: The picture that it began from, if it did.
            mask: The mask that it was repainted with, if it was.

        Returns:
            The verdict: identical; or where it departs, by how much, and what is not as it was.
        """
        with raise_client_errors(upload=file):
            if not file:
                raise InputError("Give a PNG file with its receipt.")
            for event in verifying(file, picture=picture, mask=mask):
                yield "\n".join(event.sentences) if isinstance(event, Verdict) else ""

    with gr.Row(visible=False):
        given = [
            gr.File(label="file"),
            *(PictureBox(label=name) for name in receipt.INPUT_PICTURES),
        ]
        said = gr.Textbox(label="verdict")
        gr.Button().click(verify, given, said, api_name="verify", **GPU)


def progress(event: StepChecked, same: list[bool], language: str) -> str:
    """The line while it is made again, and its steps."""
    words = say(
        "verify_same" if event.same else "verify_apart",
        language,
        step=event.step,
        total=event.total,
    )
    line = status_line("running", words, share=event.step / max(event.total, 1))
    return f'{line}<div class="gb-verdict">{_marks(same, event.total + 1, language)}</div>'


def card(verdict: Verdict, language: str) -> str:
    """The verdict: one large word, what it means, the steps, and what is not as it was."""
    space = "" if language == "zh" else " "
    said = space.join(escape(sentence) for sentence in sentences(verdict, language))
    return (
        f'<div class="gb-verdict gb-verdict-{verdict.kind}" role="status">'
        f'<p class="gb-verdict-word"><span aria-hidden="true">{MARKS[verdict.kind]}</span> '
        f"{say(f'verdict_{verdict.kind}', language)}</p>"
        f'<p class="gb-verdict-said">{said}</p>'
        f"{_marks(verdict.same, len(verdict.same), language)}{_pictures(verdict, language)}"
        f"{_around(verdict, language)}</div>"
    )


def sentences(verdict: Verdict, language: str) -> list[str]:
    """Return the sentences of a verdict in the visitor's language."""
    return [say(f"said_{key}", language, **values) for key, values in verdict.facts]


def _note(words: str) -> str:
    return f'<p class="gb-note gb-not">{words}</p>'


def _marks(same, count: int, language: str) -> str:
    """A cell for the beginning, 0, and each step."""
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
    """What came out again, and where it differs from the file, brightened; nothing where it does
    not."""
    if verdict.image is None or verdict.difference is None:
        return ""
    shown = {"verify_again": verdict.image, "verify_difference": verdict.difference}
    figures = "".join(
        f'<figure><img src="{data_url(image, SIDE)}" alt="{say(key, language)}">'
        f"<figcaption>{say(key, language)}</figcaption></figure>"
        for key, image in shown.items()
    )
    return f'<div class="gb-remade">{figures}</div>'


def _around(verdict: Verdict, language: str) -> str:
    if not verdict.environment:
        return _note(say("around_same", language)) if verdict.same else ""
    rows = "".join(
        f'<tr><th scope="row">{_named(row.what, language)}</th>'
        f"<td>{escape(row.then) or '–'}</td><td>{escape(row.now) or '–'}</td></tr>"
        for row in verdict.environment
    )
    heads = "".join(f'<th scope="col">{say(f"around_{k}", language)}</th>' for k in ("then", "now"))
    return (
        f'<table class="gb-around"><thead><tr><th scope="col">{say("around_title", language)}</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _named(what: str, language: str) -> str:
    key = f"around_{what}"
    return say(key, language) if key in TEXTS else escape(what)
