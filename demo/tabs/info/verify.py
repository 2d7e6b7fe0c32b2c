"""Verify a picture on the page and through the web API.

A picture's receipt says how it was drawn. The server draws it again and compares it step by step,
see pipeline/verify.py; this file shows the progress and the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline import verify
from pipeline.errors import InputError
from pipeline.metadata import containers, receipt
from pipeline.metadata.verdict import Verdict
from pipeline.model_cache import ModelCache
from pipeline.verify import StepChecked

from ...page import Page
from ...server.visitors import identify
from ...texts import request_language, say
from ...ui.failures import (
    FAILURES,
    error_sentence,
    hide_internal_errors,
    raise_client_errors,
)
from ...ui.listeners import GPU, PRIVATE, UNQUEUED
from ...ui.refusal import show_refusal
from ...ui.status import error_paragraph, status_line
from ...ui.upload import PictureBox
from .verdict_view import render_note, render_progress, render_verdict

SHOW_EVERY = 0.05  # seconds between two updates of the progress
# (path, visitor, picture=None, mask=None): see `make_verifier`.
Verifier = Callable[..., Iterator[StepChecked | Verdict]]


def make_verifier(
    model_cache: ModelCache,
    on_device: Callable[..., Callable[..., Iterator[Any]]],
    lora_folder: Callable[[str], Path | None],
) -> Verifier:
    """Return the function run(path, visitor, picture=None, mask=None), which verifies a picture.

    It draws the picture again from its receipt (the record in the file of how it was drawn) and
    yields a StepChecked for each step compared, then the Verdict. path: of its file. visitor: the
    id of the visitor, whose own LoRAs it may have been drawn with. picture, mask: the input files
    that the receipt asks for, if any. It raises InputError for what the user can correct, and
    Broken for an internal error.
    on_device: Runner.on_device, which gives a function the device to itself. lora_folder:
    lora_folder(visitor) returns the folder of a visitor's LoRAs.
    """

    @on_device
    def check_on_device(
        task: str, options: Any, names: tuple[Any, ...], case: verify.VerificationInput
    ) -> Iterator[StepChecked | Verdict]:
        """Verify a picture on the device; yields as `verify.check` does.

        server/zerogpu.py estimates the GPU seconds from task and options.
        """
        yield from verify.check(model_cache.get(*names), case)

    def run(path: str | None, visitor: str, **inputs: Any) -> Iterator[StepChecked | Verdict]:
        if not path:
            raise InputError("There is no file to verify: choose one first.")
        with hide_internal_errors():
            case = verify.open_input(path, **inputs)
            if not case.receipt.intact:
                yield from verify.check(None, case)
                return
            models = [entry.name for entry in model_cache.choices()]
            vaes = [entry.name for entry in model_cache.vaes()]
            chosen = verify.choose_model(case.receipt, models, vaes, model_cache.hashes())
            names = (*chosen, lora_folder(visitor))
            model_cache.get(*names)
        yield from check_on_device(case.receipt.task, case.options, names, case)

    return run


@dataclass(frozen=True)
class Panel:
    """The components of the tab PNG info that show a picture's receipt and verify the picture.

    A receipt is the record, in the picture's file, of how it was drawn.

    column   holds all others; hidden while no file is open
    about    what the receipt says, or that there is none
    inputs   {"picture": box, "mask": box} for the input files that the receipt asks for
    button   starts the verification, which draws the picture again and compares it
    verdict  the progress of the verification, then its result
    """

    column: gr.Column
    about: gr.HTML
    inputs: dict[str, PictureBox]
    button: gr.Button
    verdict: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """All components that `show_receipt` may update, for the outputs of a Gradio listener."""
        return [self.column, self.about, *self.inputs.values(), self.button, self.verdict]

    def show_receipt(self, path: str | None, language: str) -> dict[Any, Any]:
        """Return updates that show the receipt of the picture at `path`; None hides the panel.

        A receipt is the record, in the picture's file, of how it was drawn. For a file without one,
        or with a damaged one, the updates show a sentence that says so.
        """
        hidden = gr.update(visible=False)
        updates: dict[Any, Any] = {
            self.column: gr.update(visible=path is not None),
            self.verdict: "",
        }
        updates |= {self.button: hidden} | dict.fromkeys(self.inputs.values(), hidden)
        if path is None:
            return updates
        try:
            stored = receipt.read(path)
        except InputError as error:
            damaged = receipt.KEYWORD in containers.read_texts(path, receipt.KEYWORD)
            about = (
                error_paragraph(error_sentence(error, language, upload=path))
                if damaged
                else render_note(say("verify_none", language))
            )
            return updates | {self.about: about}
        steps = max(len(stored.steps) - 1, 0)
        about = render_note(
            say("verify_offer", language, model=escape(stored.model_label), steps=steps)
        )
        if stored.inputs:
            about += render_note(say("verify_needs", language))
        boxes = {
            box: gr.update(value=None, visible=name in stored.inputs)
            for name, box in self.inputs.items()
        }
        return updates | {self.about: about, self.button: gr.update(visible=True)} | boxes


def build_panel(page: Page, file: gr.State, verify: Verifier) -> Panel:
    """Add the components that show a picture's receipt and verify the picture; attach the listener.

    A receipt is the record, in the picture's file, of how it was drawn. file: holds the path of the
    picture. verify: the function from `make_verifier`.
    """
    i18n = page.i18n
    with gr.Column(visible=False, min_width=0, elem_id="info-receipt") as column:
        gr.HTML(f'<h2 class="gb-title">{i18n("verify_title")}</h2>', apply_default_css=False)
        about = gr.HTML(apply_default_css=False, elem_id="info-receipt-about")
        with gr.Row():
            inputs = {
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
        """Verify the picture at `path`: yield the progress as HTML, then the verdict.

        pictures: the files of `inputs`, in that order; None where the visitor gave none.
        """
        language, last_update = request_language(request), 0.0
        same: list[bool] = []
        try:
            given = dict(zip(inputs, pictures, strict=True))
            for event in verify(path, identify(request), **given):
                if isinstance(event, Verdict):
                    yield render_verdict(event, language)
                    continue
                same += [event.same] * (event.step + 1 - len(same))
                if time.monotonic() - last_update >= SHOW_EVERY:
                    last_update = time.monotonic()
                    yield render_progress(event, same, language)
        except FAILURES as error:
            yield error_paragraph(error_sentence(error, language, upload=path))

    running = button.click(wait, None, verdict, trigger_mode="once", **UNQUEUED).then(
        run, [file, *inputs.values()], verdict, **PRIVATE, **GPU
    )
    show_refusal(running, page.runs.refusals, verdict)
    return Panel(column, about, inputs, button, verdict)


def add_endpoint(run: Verifier) -> None:
    """Add the endpoint `/verify` to the page's web API: it draws a picture again and compares.

    Gradio derives endpoints from components, so hidden ones are added. run: the function from
    `make_verifier`, which does the work.
    """

    def verify(
        file: Any,
        picture: Any = None,
        mask: Any = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[str]:
        """Draw a picture again as its receipt says, and compare the two step by step.

        Args:
            file: The PNG file to verify, as it was saved here, with its receipt.
            picture: The input picture that it was made from, if there was one.
            mask: The mask that it was inpainted with, if there was one.

        Returns:
            The verdict: that they are identical; or from which step they differ, by how much, and
            what has changed in the environment since.
        """
        with raise_client_errors(upload=file):
            if not file:
                raise InputError("Give a PNG file with its receipt.")
            for event in run(file, identify(request), picture=picture, mask=mask):
                yield "\n".join(event.sentences) if isinstance(event, Verdict) else ""

    with gr.Row(visible=False):
        inputs = [
            gr.File(label="file"),
            *(PictureBox(label=name) for name in receipt.INPUT_PICTURES),
        ]
        output = gr.Textbox(label="verdict")
        gr.Button().click(verify, inputs, output, api_name="verify", **GPU)
