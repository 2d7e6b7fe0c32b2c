"""Run a task when its button is pressed: show each step, then the pictures, unless stopped."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from ..events import Finished
from ..server.runner import task_fields
from ..server.runs import Run
from ..server.temp_folder import request_folder
from ..texts import say
from ..ui.listeners import GPU
from ..ui.status import done_line, empty_frame, preview_frame, progress_line, status_line
from ..ui.stop import Final, StopButton, Update, Updates
from ..ui.tab import TaskTab
from . import history
from .fill_form import TEXT_NUMBERS

if TYPE_CHECKING:
    from ..page import Page
    from .layout import ResultView

PREVIEW_EVERY = 0.05  # least seconds between previews: a browser cannot show all of a fast GPU
SIZE = ("width", "height")


def wire(
    page: Page,
    key: str,
    task: TaskTab,
    button: gr.Button,
    own: dict[str, Component],
    stop: StopButton,
) -> None:
    """Make a task's button run the task and show the result, and the Stop button stop it.

    key: the task's key in `pipeline.tasks`, such as "inpaint"
    own: a dict from name to component of the inputs that only this task has
    """
    result = page.result
    shared = {
        name: page.form[name]
        for name in task_fields(key)
        if name in page.form and name not in own and name not in task.without
    }
    inputs = {**shared, **own} | ({"own_size": page.own_size} if task.own_size else {})

    def options_of(values: dict[str, Any]) -> dict[str, Any]:
        """Return the fields for `Runner.stream` from the values of `inputs`, both by name."""
        fields = {name: values[name] for name in shared}
        for name in fields.keys() & set(TEXT_NUMBERS):
            fields[name] = (fields[name] or "").strip() or None
        if values.get("own_size"):
            fields |= dict.fromkeys(SIZE)
        return fields | task.fields({name: values[name] for name in own})

    def draw(run: Run, language: str, *values: Any) -> Updates:
        """Yield the page's updates while the task runs; after an error the old pictures stay."""
        given = dict(zip(inputs, values, strict=True))
        starting: Update = {result.status: status_line("running", say("starting", language))}
        yield starting | result.comparison.hide()
        fields, shown = options_of(given), 0.0
        with request_folder() as folder:
            for event in page.runner.stream(fields, folder, key, record=True, visitor=run.visitor):
                if isinstance(event, Finished):
                    compared = result.comparison.reset(task.before(given))
                    yield Final(_finished(result, event, language, task.first) | compared)
                    return
                run.progress = event
                if time.monotonic() - shown < PREVIEW_EVERY:
                    yield None
                    continue
                shown = time.monotonic()
                yield {
                    result.view: preview_frame(event.preview, say("preview_alt", language)),
                    result.status: progress_line(event, language),
                }

    outputs = [result.view, result.gallery, result.chosen, result.parameters]
    outputs += [result.records, result.last_seed, result.strip, *result.comparison.reset(None)]
    stop.add(
        button.click,
        draw,
        [*inputs.values()],
        outputs,
        **GPU | {"show_progress": "minimal", "show_progress_on": result.status},
    )


def _finished(result: ResultView, event: Finished, language: str, first: bool) -> Update:
    """Return the updates that show the pictures of a finished request in the gallery.

    A single picture is shown large, several as a grid of thumbnails; with `first`, the first of
    several is shown large.
    """
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
        result.strip: history.history_entries(event),
    }
