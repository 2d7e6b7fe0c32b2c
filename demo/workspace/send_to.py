"""Input pictures of the tasks: check a picture once it is uploaded; send one to another task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from pipeline.errors import InputError
from pipeline.images.open import opened

from ..texts import request_language, say
from ..ui.failures import error_sentence
from ..ui.fields import Box
from ..ui.listeners import UNQUEUED, event_value
from ..ui.status import error_line, status_line, warning_list

if TYPE_CHECKING:
    from ..page import Page


def build_buttons(page: Page, place: str) -> dict[str, gr.Button]:
    """Build the buttons that send a picture to a task: one for each task with an input picture.

    Returns a dict from task key to button. They do nothing until `wire_buttons`. place: prefix of
    their elem_ids.
    """
    gr.HTML(f"<span>{page.i18n('send')}</span>", apply_default_css=False, min_width=0)
    return {
        key: gr.Button(page.i18n(f"tab_{key}"), size="sm", elem_id=f"{place}-to-{key}", min_width=0)
        for key in page.boxes
    }


def wire_buttons(
    page: Page,
    buttons: dict[str, gr.Button],
    source: list[Component],
    path_of: Callable[..., str | None],
) -> None:
    """Make each button put a picture into a task's input and select that task's tab.

    buttons: a dict from task key to button, from `build_buttons`
    path_of: takes the values of the components `source`; returns the picture's path, or None if
        there is no picture
    """
    for key, button in buttons.items():
        box = page.boxes[key]

        def send(
            request: gr.Request, *values: Any, key: str = key, box: Box = box
        ) -> dict[Any, Any]:
            language = request_language(request)
            path = path_of(*values)
            if path is None:
                return {page.result.status: error_line(say("send_none", language))}
            updates = picture_updates(page, box, path, language, given=False)
            return updates | {page.tabs: gr.Tabs(selected=key)}

        outputs = [page.result.status, page.tabs, *box.show(None, None)]
        button.click(send, source, outputs, **UNQUEUED)


def picture_updates(
    page: Page, box: Box, path: str | None, language: str, given: bool
) -> dict[Any, Any]:
    """Return the updates of the page after a task's input picture was set, changed or removed.

    A file that cannot be opened is removed from the input, and the status line says why.
    box: the task's input. path: None if the picture was removed.
    given: whether the input component shows the file already, because it was uploaded there.
    """
    status = page.result.status
    if path is None:
        return box.show(None, None)
    try:
        with opened(path) as (picture,):
            width, height = picture.image.size
            ready = say("picture_ready", language, width=width, height=height)
            updates: dict[Any, Any] = {
                status: status_line("ready", ready, below=warning_list(picture.notes))
            }
            return updates | (box.show(path, picture.image) if box.follow or not given else {})
    except InputError as error:
        return {status: error_line(error_sentence(error, language)), **box.show(None, None)}


def wire(page: Page, buttons: dict[str, gr.Button]) -> None:
    """Check each input picture when it is uploaded; let buttons send the gallery's picture on.

    buttons: a dict from task key to the button that puts the gallery's selected picture into that
    task's input, from `build_buttons`.
    """
    result = page.result
    for box in page.boxes.values():

        def check(path: str | None, request: gr.Request, box: Box = box) -> dict[Any, Any]:
            return picture_updates(page, box, path, request_language(request), given=True)

        outputs = [result.status, *box.show(None, None)]
        box.picture.input(check, box.picture, outputs, **UNQUEUED)

    def choose(event: gr.EventData) -> int:
        return event_value(event, "index", int)

    result.gallery.select(choose, None, result.chosen, **UNQUEUED)
    wire_buttons(page, buttons, [result.gallery, result.chosen], chosen_picture)


def chosen_picture(pictures: list | None, index: int) -> str | None:
    """Return the path of the gallery's picture `index`, or of the last one if there are fewer.

    pictures: the gallery's value, a list of (path, caption). None for an empty gallery.
    """
    return pictures[min(index, len(pictures) - 1)][0] if pictures else None
