"""The web API: an endpoint for each task, for gradio_client, curl and MCP.

The fields of an endpoint are plain text, numbers and picture files; only the task's Options
validate them. The attention and GroupNorm backends are no fields: the server chooses them. Clients
send fields by position, so a new field must come last.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.caching import CacheMissError
from gradio.components import Component
from gradio.state_holder import SessionState

from pipeline import tasks

from ..events import Finished
from ..texts import request_language
from ..ui.failures import (
    FAILURES,
    client_error,
    error_sentence,
    hide_internal_errors,
    raise_client_errors,
)
from ..ui.listeners import GPU
from ..ui.upload import PictureBox
from .runner import MODEL_FIELDS, Runner
from .temp_folder import request_folder
from .upkeep import Upkeep
from .values import read_values
from .visitors import identify

PICTURES = ("picture", "mask")  # fields whose value is a file
FIRST = ("picture", "mask", "prompt", "negative")  # of these, a task's fields come first
NOT_OFFERED = ("attention", "group_norm")  # the server chooses them
LATER = ("variation_seed", "variation_strength")  # added after the order was fixed
DESCRIPTIONS = {  # of MODEL_FIELDS, which are not in the Options
    "model": "A name of the page's models; the first one if left out.",
    "vae": "A name of the page's autoencoders; the model's own if left out.",
}


class Blocks(gr.Blocks):
    """A gr.Blocks that answers every request that it cannot serve with a sentence.

    Endpoints of tasks, and `/verify`, also accept requests that leave out the last values, and then
    take their defaults.

    i18n: the page's texts in English and Chinese, to be passed to `launch`.
    upkeep: holds what the page's server keeps within its bounds.
    """

    i18n: gr.I18n
    upkeep: Upkeep

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Append the default of each value a request leaves out; check that none is missing then.

        block_fn: the function behind the endpoint. inputs: the values that the client sent, changed
        in place. Raises gr.Error.
        """
        if block_fn.api_name in (*tasks.TASKS, "verify"):
            inputs += [getattr(field, "value", None) for field in block_fn.inputs[len(inputs) :]]
        if len(inputs) < len(block_fn.inputs):
            wanted, given = len(block_fn.inputs), len(inputs)
            raise client_error(f"This endpoint takes {wanted} values, not {given}.")

    async def preprocess_data(
        self,
        block_fn: BlockFunction,
        inputs: list[Any],
        state: SessionState | None,
        explicit_call: bool = False,
    ) -> list[Any]:
        """Check the values that a client sent, then let Gradio turn them into a listener's.

        The arguments are Gradio's. Raises gr.Error, with a sentence that names the field.
        """
        self.validate_inputs(block_fn, inputs)
        with raise_client_errors():
            await read_values(block_fn, inputs, self.mcp_server)
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except gr.Error as error:
            raise client_error(error.message) from None
        except Exception:
            raise client_error("A value of the request cannot be read.") from None

    async def process_api(self, block_fn: BlockFunction | int, *args: Any, **more: Any) -> Any:
        """Run a listener as Gradio does, and raise gr.Error for every exception.

        An unexpected one is logged; the client gets a sentence that says that the server failed.
        """
        try:
            return await super().process_api(block_fn, *args, **more)
        except (gr.Error, CacheMissError):
            raise
        except Exception as error:
            language = request_language(more.get("request"))
            try:
                with hide_internal_errors():
                    raise error
            except FAILURES as failure:
                raise client_error(error_sentence(failure, language)) from None


def endpoints(runner: Runner) -> None:
    """Add a web API endpoint for each task, such as `/inpaint`, to the gr.Blocks being built.

    Gradio derives endpoints from components, so each endpoint gets hidden ones for its fields.
    runner: runs the requests.
    """
    for key in tasks.TASKS:
        with gr.Row(visible=False):
            inputs = [_component(key, name) for name in names(key)]
            outputs = [gr.Gallery(label="pictures", format="png"), gr.Textbox(label="parameters")]
            gr.Button().click(handler(key, runner), inputs, outputs, api_name=key, **GPU)


def names(key: str) -> tuple[str, ...]:
    """Return the names of the fields of a task's endpoint, in the order in which clients send them.

    key: the task's key, such as "inpaint".
    """
    there = tasks.module(key).Options.model_fields
    shared = tasks.module("generate").Options.model_fields
    own = [name for name in there if name not in shared and name not in FIRST]
    rest = [name for name in shared if name not in (*FIRST, *NOT_OFFERED, *LATER)]
    return (*(name for name in FIRST if name in there), *own, *rest, *MODEL_FIELDS, *LATER)


def handler(key: str, runner: Runner) -> Callable[..., Iterator[tuple[list[str], str]]]:
    """Return the generator function that serves the web API's endpoint of the task `key`.

    It yields ([], "") after each sampling step, then (paths of PNG files, parameters text). Its
    signature and docstring, which Gradio shows to clients, are made from the task's fields. key:
    such as "inpaint". runner: draws the pictures on the server's device.
    """
    fields = names(key)

    def draw(*arguments: Any) -> Iterator[tuple[list[str], str]]:
        *values, request = arguments
        given = {n: v for n, v in zip(fields, values, strict=False) if v is not None and v != ""}
        with (
            raise_client_errors(),
            request_folder() as folder,
        ):
            for event in runner.stream(given, folder, key, visitor=identify(request)):
                # A yield at every step lets the work stop when the client cancels or is gone.
                if isinstance(event, Finished):
                    yield event.files, event.parameters
                else:
                    yield [], ""

    draw.__name__ = key
    draw.__doc__ = _docstring(key)
    draw.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # read by Gradio
        [
            inspect.Parameter(
                name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=_default(key, name)
            )
            for name in fields
        ]
        # Filled in by Gradio, which knows it by its type.
        + [inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)]
    )
    draw.__annotations__ = {"request": gr.Request}
    return draw


def _docstring(key: str) -> str:
    """Return the documentation of a task's endpoint, which the API page and MCP clients show.

    key: the task's key, such as "inpaint".
    """
    note, there = tasks.TASKS[key].note, tasks.module(key).Options.model_fields
    lines = [f"{note[:1].upper()}{note[1:]}; the prompt may be English or Chinese.", "", "Args:"]
    for name in names(key):
        says = DESCRIPTIONS.get(name) or there[name].description.rstrip(".") + "."
        if name in there and there[name].default is None and name not in FIRST:
            says = says[:-1] + "; left out: what suits the model."
        lines.append(f"    {name}: {says}")
    lines += ["", "Returns:"]
    lines += [
        "    The pictures as PNG files that hold their parameters, and the parameters as text."
    ]
    return "\n".join(lines)


def _default(key: str, name: str) -> Any:
    """Return the default of the field `name` in the endpoint of the task `key`, such as "inpaint".

    For the endpoint's first field, which is required, return inspect.Parameter.empty.
    """
    there = tasks.module(key).Options.model_fields
    if name == names(key)[0]:
        return inspect.Parameter.empty
    return there[name].default if name in there else None


def _component(key: str, name: str) -> Component:
    """Return the Gradio component through which an endpoint receives one field of a task.

    It checks nothing: the task's Options validate the value. key, name: the task, such as
    "inpaint", and the field, such as "strength".
    """
    field = tasks.module(key).Options.model_fields.get(name)
    value = None if field is None else field.default
    if name in PICTURES:
        return PictureBox(label=name)
    if isinstance(value, bool):
        return gr.Checkbox(value, label=name)
    if field is None or "str" in str(field.annotation):
        # An empty Textbox, so that a client need not send the prompt of a picture.
        return gr.Textbox(value, label=name)
    return gr.Number(value, label=name)
