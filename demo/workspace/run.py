"""From a button to pictures: a task is asked for, its steps are shown, and it can be stopped."""

from __future__ import annotations

import math
import tempfile
import time

import gradio as gr

from pipeline.errors import InputError

from ..server.api import GPU
from ..server.runner import Broken, Finished, broken, fields_of
from ..texts import request_language, say
from ..ui import status
from ..ui.tab import TaskTab
from . import history
from .fill_form import TYPED

IDLE = "idle"  # in place of the last step: nothing is on its way
PREVIEW_EVERY = 0.05  # seconds: a fast GPU makes more steps than a browser can show
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
SIZE = ("width", "height")


def wire(page, key: str, task: TaskTab, go: gr.Button, own: dict):
    """Make the task's button draw; returns the listener, to be stopped. own: the task's inputs."""
    seen = page.seen
    shared = {
        name: page.form[name]
        for name in fields_of(key)
        if name in page.form and name not in own and name not in task.without
    }
    given = {**shared, **own} | ({"own_size": page.own_size} if task.own_size else {})

    def wait(request: gr.Request):
        return status.line("running", say("waiting", request_language(request))), None

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
        starting = {seen.status: status.line("running", say("starting", language))}
        yield starting | {seen.last_step: None} | seen.comparison.put_away()
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                shown = 0.0
                with broken():
                    fields = asked(values)
                for event in page.paint(fields, folder, key, record=True):
                    if isinstance(event, Finished):
                        before = task.before(dict(zip(given, values, strict=True)))
                        compared = seen.comparison.after(before)
                        yield _finished(seen, event, language, task.first) | compared
                    elif time.monotonic() - shown >= PREVIEW_EVERY:
                        shown = time.monotonic()
                        yield {
                            seen.view: status.live(event, language),
                            seen.status: status.running(event, language),
                            seen.last_step: event,
                        }
        except (InputError, Broken) as error:
            sentence = str(error) if isinstance(error, InputError) else say("broken", language)
            yield {seen.status: status.error(sentence), seen.last_step: IDLE}
            raise gr.Error(sentence, title=say("error", language), print_exception=False) from None

    outputs = [seen.view, seen.status, seen.gallery, seen.chosen, seen.parameters]
    outputs += [
        seen.records,
        seen.last_seed,
        seen.strip,
        seen.last_step,
        *seen.comparison.after(None),
    ]
    return go.click(
        wait,
        None,
        [seen.status, seen.last_step],
        queue=False,
        trigger_mode="once",
        **PRIVATE,
    ).then(
        run,
        [*given.values()],
        outputs,
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=seen.status,
        **GPU,
    )


def stopping(seen, stop: gr.Button, runs: list) -> None:
    """Make the button stop whichever of `runs` is on its way."""

    def halt(step, request: gr.Request):
        if step == IDLE:  # it was done before the button was heard
            return gr.skip()
        return status.stopped(step, request_language(request))

    def settle(step, request: gr.Request):
        """Says it again: a step that was already on its way may have come after the first word."""
        time.sleep(0.5)
        return halt(step, request)

    stop.click(halt, seen.last_step, seen.status, cancels=runs, queue=False, **PRIVATE).then(
        settle, seen.last_step, seen.status, queue=False, **PRIVATE
    )


def _finished(seen, event: Finished, language: str, first: bool) -> dict:
    """One picture large, several as tiles that open."""
    large = first or len(event.files) == 1
    columns = math.ceil(math.sqrt(len(event.files)))
    return {
        seen.view: status.shown(),
        seen.status: status.done(event, language),
        seen.gallery: gr.update(
            value=event.files, columns=columns, selected_index=0 if large else None
        ),
        seen.chosen: 0,
        seen.parameters: event.parameters,
        seen.records: event.records,
        seen.last_seed: str(event.seed),
        seen.strip: history.entries(event),
        seen.last_step: IDLE,
    }
