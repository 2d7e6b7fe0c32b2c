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
from pipeline.model_cache import ModelCache
from pipeline.verify import StepChecked

from ...page import Page
from ...texts import request_language, say
from ...ui.failures import (
    FAILURES,
    error_sentence,
    hide_internal_errors,
    raise_client_errors,
)
from ...ui.listeners import GPU, PRIVATE, UNQUEUED
from ...ui.status import error_paragraph, status_line
from ...ui.upload import PictureBox
from .verdict_view import render_note, render_progress, render_verdict

SHOW_EVERY = 0.05  # seconds between two updates of the progress
Verifier = Callable[..., Iterator[StepChecked | Verdict]]


def make_verifier(
    model_cache: ModelCache, on_device: Callable[..., Callable[..., Iterator[Any]]]
) -> Verifier:
    """Return `run(path, picture=..., mask=...)`, which yields the progress, then the Verdict.

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
    def outputs(self) -> list[Any]:
        """All components that the panel updates."""
        return [self.column, self.about, *self.given.values(), self.button, self.verdict]

    def show_receipt(self, path: str | None, language: str) -> dict[Any, Any]:
        """Return updates that show the receipt of a file; None: no file."""
        hidden = gr.update(visible=False)
        updates = {self.column: gr.update(visible=path is not None), self.verdict: ""}
        updates |= {self.button: hidden} | dict.fromkeys(self.given.values(), hidden)
        if path is None:
            return updates
        try:
            then = receipt.read(path)
        except InputError as error:
            damaged = receipt.KEYWORD in containers.read_texts(path, receipt.KEYWORD)
            said = (
                error_paragraph(str(error))
                if damaged
                else render_note(say("verify_none", language))
            )
            return updates | {self.about: said}
        steps = max(len(then.steps) - 1, 0)
        said = render_note(
            say("verify_offer", language, model=escape(then.model_label), steps=steps)
        )
        if then.inputs:
            said += render_note(say("verify_needs", language))
        wanted = {
            box: gr.update(value=None, visible=name in then.inputs)
            for name, box in self.given.items()
        }
        return updates | {self.about: said, self.button: gr.update(visible=True)} | wanted


def build_panel(page: Page, file: gr.State, verify: Verifier) -> Panel:
    """Build the receipt's part of the tab and wire its button. file: holds the picture's path."""
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

    def wait(request: gr.Request) -> str:
        return status_line("running", say("waiting", request_language(request)))

    def run(request: gr.Request, path: str, *pictures: str | None) -> Iterator[str]:
        """Verify the picture and stream the progress, then the verdict."""
        language, shown = request_language(request), 0.0
        same: list[bool] = []
        try:
            for event in verify(path, **dict(zip(given, pictures, strict=True))):
                if isinstance(event, Verdict):
                    yield render_verdict(event, language)
                    continue
                same += [event.same] * (event.step + 1 - len(same))
                if time.monotonic() - shown >= SHOW_EVERY:
                    shown = time.monotonic()
                    yield render_progress(event, same, language)
        except FAILURES as error:
            yield error_paragraph(error_sentence(error, language, upload=path))

    button.click(wait, None, verdict, trigger_mode="once", **UNQUEUED).then(
        run, [file, *given.values()], verdict, **PRIVATE, **GPU
    )
    return Panel(column, about, given, button, verdict)


def add_endpoint(verifying: Verifier) -> None:
    """Add `/verify` to the page that is being built; its components are never shown."""

    def verify(file: Any, picture: Any = None, mask: Any = None) -> Iterator[str]:
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
