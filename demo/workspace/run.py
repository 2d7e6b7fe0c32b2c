"""From a button to pictures: a task is asked for, its steps are shown, and it can be stopped."""

from __future__ import annotations

import math
import tempfile
import time

import gradio as gr

from ..events import Finished
from ..server.runner import task_fields
from ..texts import request_language, say
from ..ui.failures import FAILURES, error_sentence, error_toast, hide_internal_errors
from ..ui.listeners import GPU, PRIVATE
from ..ui.status import (
    done_line,
    empty_frame,
    error_line,
    preview_frame,
    progress_line,
    status_line,
    stopped_line,
)
from ..ui.tab import TaskTab
from . import history
from .fill_form import TYPED

IDLE = "idle"  # in place of the last step: nothing is on its way
PREVIEW_EVERY = 0.05  # seconds: a fast GPU makes more steps than a browser can show
SIZE = ("width", "height")


def wire(page, key: str, task: TaskTab, go: gr.Button, own: dict):
    """Make the task's button draw; returns the listener, to be stopped. own: the task's inputs."""
    result = page.result
    shared = {
        name: page.form[name]
        for name in task_fields(key)
        if name in page.form and name not in own and name not in task.without
    }
    given = {**shared, **own} | ({"own_size": page.own_size} if task.own_size else {})

    def wait(request: gr.Request):
        return status_line("running", say("waiting", request_language(request))), None

    def asked(values) -> dict:
        """Fields of the task's Options, and the model's."""
        named = dict(zip(given, values, strict=True))
        fields = {name: named[name] for name in shared}
        for name in fields.keys() & set(TYPED):
            fields[name] = (fields[name] or "").strip() or None
        if named.get("own_size"):
            fields |= dict.fromkeys(SIZE)
        return fields | task.fields({name: named[name] for name in own})

    def run(request: gr.Request, *values):
        """Streams the picture. A failure keeps what is on the page and says why."""
        language = request_language(request)
        starting = {result.status: status_line("running", say("starting", language))}
        yield starting | {result.last_step: None} | result.comparison.put_away()
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                shown = 0.0
                with hide_internal_errors():
                    fields = asked(values)
                for event in page.runner.stream(fields, folder, key, record=True):
                    if isinstance(event, Finished):
                        before = task.before(dict(zip(given, values, strict=True)))
                        compared = result.comparison.after(before)
                        yield _finished(result, event, language, task.first) | compared
                    elif time.monotonic() - shown >= PREVIEW_EVERY:
                        shown = time.monotonic()
                        yield {
                            result.view: preview_frame(event.preview, say("preview_alt", language)),
                            result.status: progress_line(event, language),
                            result.last_step: event,
                        }
        except FAILURES as error:
            sentence = error_sentence(error, language)
            yield {result.status: error_line(sentence), result.last_step: IDLE}
            raise error_toast(sentence, language) from None

    outputs = [result.view, result.status, result.gallery, result.chosen, result.parameters]
    outputs += [
        result.records,
        result.last_seed,
        result.strip,
        result.last_step,
        *result.comparison.after(None),
    ]
    return go.click(
        wait,
        None,
        [result.status, result.last_step],
        queue=False,
        trigger_mode="once",
        **PRIVATE,
    ).then(
        run,
        [*given.values()],
        outputs,
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=result.status,
        **GPU,
    )


def stopping(result, stop: gr.Button, runs: list) -> None:
    """Make the button stop whichever of `runs` is on its way."""

    def halt(step, request: gr.Request):
        if step == IDLE:  # it was done before the button was heard
            return gr.skip()
        return stopped_line(step, request_language(request))

    def settle(step, request: gr.Request):
        """Says it again: a step that was already on its way may have come after the first word."""
        time.sleep(0.5)
        return halt(step, request)

    stop.click(halt, result.last_step, result.status, cancels=runs, queue=False, **PRIVATE).then(
        settle, result.last_step, result.status, queue=False, **PRIVATE
    )


def _finished(result, event: Finished, language: str, first: bool) -> dict:
    """One picture large, several as tiles that open."""
    large = first or len(event.files) == 1
    columns = math.ceil(math.sqrt(len(event.files)))
    return {
        result.view: empty_frame(),
        result.status: done_line(event, language),
        result.gallery: gr.update(
            value=event.files, columns=columns, selected_index=0 if large else None
        ),
        result.chosen: 0,
        result.parameters: event.parameters,
        result.records: event.records,
        result.last_seed: str(event.seed),
        result.strip: history.entries(event),
        result.last_step: IDLE,
    }
