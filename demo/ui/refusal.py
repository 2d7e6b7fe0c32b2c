"""Say on the page that a request was refused before it could wait, and offer to try again.

Gradio then runs nothing of a listener on the server: it shows a toast, and starts what stands in
`.failure(...)` of the listener.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context
from gradio.events import Dependency

from ..texts import request_language, say
from .listeners import UNQUEUED
from .status import status_line

if TYPE_CHECKING:
    from ..server.runs import Refusals


def show_refusal(
    listener: Dependency, refusals: Refusals, status: gr.HTML, button: str | None = None
) -> None:
    """Show in `status` why a request of `listener` was refused, with a button that repeats it.

    A request that failed otherwise changes nothing. refusals: where the server's queue says why.
    status: the component of the status line. button: the elem_id of the button that starts the
    listener; None: of the one whose press does; for a listener without a button none is offered.
    """
    number = listener["id"]
    press = button or button_of(listener)

    def show(request: gr.Request) -> Any:
        refused = refusals.take(request.session_hash or "", number)
        if refused is None:
            return gr.skip()
        language = request_language(request)
        return refusal_line(refused.sentence(language), press, language)

    listener.failure(show, None, status, **UNQUEUED)


def button_of(listener: Dependency) -> str | None:
    """Return the elem_id of the button whose click starts a listener, also one after another.

    None if it is started by something else than a button with an elem_id.
    """
    root = Context.root_block
    assert root is not None, "no page is being built"
    fn = root.fns[listener["id"]]
    while fn.trigger_after is not None:
        fn = root.fns[fn.trigger_after]
    for block, event in fn.targets:
        component = root.blocks.get(block) if block is not None else None
        if event == "click" and isinstance(component, gr.Button):
            return component.elem_id
    return None


def refusal_line(sentence: str, button: str | None, language: str) -> str:
    """Return the HTML status line of a refused request.

    sentence: why, plain text. button: the elem_id of the button that "Try again" presses (again.js
    does it); None for none.
    """
    again = ""
    if button:
        again = (
            f'<button type="button" class="gb-again" data-press="{escape(button)}">'
            f"{say('again', language)}</button>"
        )
    return status_line("error", escape(sentence), below=again)
