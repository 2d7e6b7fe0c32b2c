"""Pictures go from tab to tab: what is given is checked at once, what was made is sent on."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from pipeline.errors import InputError
from pipeline.images.open import open_picture

from ..texts import request_language, say
from ..ui.fields import Box
from ..ui.listeners import UNQUEUED
from ..ui.status import error_line, status_line, warning_list


def row(page, place: str) -> dict[str, gr.Button]:
    """Buttons that send a picture, one for each task that takes one; see `send`."""
    gr.HTML(f"<span>{page.i18n('send')}</span>", apply_default_css=False, min_width=0)
    return {
        key: gr.Button(page.i18n(f"tab_{key}"), size="sm", elem_id=f"{place}-to-{key}", min_width=0)
        for key in page.boxes
    }


def send(page, buttons: dict[str, gr.Button], source: list, path_of: Callable) -> None:
    """Make the buttons of `row` put a picture into their tasks' boxes and bring their tabs to the
    front. path_of: its path or None, from the values of the components `source`."""
    for key, button in buttons.items():
        box = page.boxes[key]

        def put(request: gr.Request, *values, key=key, box=box):
            language = request_language(request)
            path = path_of(*values)
            if path is None:
                return {page.result.status: error_line(say("send_none", language))}
            return opened(page, box, path, language, given=False) | {
                page.tabs: gr.Tabs(selected=key)
            }

        outputs = {page.result.status, page.tabs, *box.show(None, None)}
        button.click(put, source, outputs, **UNQUEUED)


def opened(page, box: Box, path: str | None, language: str, given: bool) -> dict:
    """Updates after a picture came into a box, or left it: what cannot be opened is said and does
    not stay. given: whether the box has the file already."""
    status = page.result.status
    if path is None:
        return box.show(None, None)
    try:
        picture = open_picture(path)
    except InputError as error:
        return {status: error_line(str(error)), **box.show(None, None)}
    width, height = picture.image.size
    said = say("picture_ready", language, width=width, height=height)
    updates = {status: status_line("ready", said, below=warning_list(picture.notes))}
    return updates | (box.show(path, picture.image) if box.follow or not given else {})


def wire(page, buttons: dict[str, gr.Button]) -> None:
    """Pictures that visitors give to a task, and the row of buttons under the gallery."""
    result = page.result
    for box in page.boxes.values():

        def check(path: str | None, request: gr.Request, box=box):
            return opened(page, box, path, request_language(request), given=True)

        outputs = {result.status, *box.show(None, None)}
        box.picture.input(check, box.picture, outputs, **UNQUEUED)

    def pick(event: gr.SelectData):
        return event.index

    result.gallery.select(pick, None, result.chosen, **UNQUEUED)
    send(page, buttons, [result.gallery, result.chosen], chosen)


def chosen(pictures: list | None, index: int) -> str | None:
    """The path of the gallery's picture that is looked at."""
    return pictures[min(index, len(pictures) - 1)][0] if pictures else None
