"""Check the values that clients send for a listener's components, before Gradio reads them.

Gradio's components trust that the browser sends what they showed: text to a number field, or a file
that was never uploaded, ends in a traceback and an answer without a reason.
"""

from __future__ import annotations

import math
import os
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components import Component

from pipeline import tasks
from pipeline.errors import InputError

from .fetch import fetch_file
from .request_body import has_surrogates

MAX_FILES = 100  # of one value
FILES = (gr.Image, gr.File, gr.UploadButton)  # a file, or a list of files
PICTURES = (gr.ImageEditor, gr.Gallery)  # files inside other values
WEB = ("http://", "https://")


async def read_values(listener: BlockFunction, values: list[Any], may_fetch: bool = False) -> None:
    """Check the value of each component of a listener.

    values: changed in place: a number sent as text becomes a number. may_fetch: whether a public
    endpoint fetches files that are named by their address in the web, which become paths too.
    Raises InputError, whose sentence names the field.
    """
    public = listener.api_visibility == "public"
    for index, component in enumerate(listener.inputs):
        if not isinstance(component, Component) or component.stateful:
            continue
        if index in listener.component_prop_inputs:
            continue
        name = _name(component, index)
        if isinstance(component, FILES + PICTURES):
            await _check_files(name, component, values[index], may_fetch and public)
        elif listener.api_name not in tasks.TASKS:  # a task's Options check its other values
            if has_surrogates(values[index]):
                raise InputError(f"{name} must be whole Unicode characters.")
            value = _check_value(name, component, values[index])
            if value is None and isinstance(component, gr.Textbox):
                # As the page sends an empty box; for a client it is a value that it leaves out.
                value = component.value if public else ""
            values[index] = value


def _name(component: Component, index: int) -> str:
    """Return how an error sentence calls a component: by its label, or by its place."""
    label = getattr(component, "label", None)
    return f"`{label}`" if isinstance(label, str) and label else f"Value {index + 1}"


def _check_value(name: str, component: Component, value: Any) -> Any:
    """Return the value of a component that holds no file; raise InputError for a wrong kind."""
    if isinstance(component, gr.Number | gr.Slider):
        return _number(name, value, optional=not isinstance(component, gr.Slider))
    if isinstance(component, gr.Textbox):
        if value is None or isinstance(value, str | int | float):
            return value
        raise InputError(f"{name} must be text.")
    if isinstance(component, gr.Checkbox):
        if value is None or isinstance(value, bool):
            return value
        raise InputError(f"{name} must be true or false.")
    if isinstance(component, gr.Dropdown | gr.Radio):
        several = isinstance(value, list) and getattr(component, "multiselect", False)
        chosen = value if several else [value]
        emptied = value is None and component.value is not None  # such a menu cannot be emptied
        if not emptied and all(v is None or isinstance(v, str | int | float) for v in chosen):
            return value
        raise InputError(f"{name} must be one of its choices.")
    if isinstance(component, gr.Dataset):
        if isinstance(value, int) and 0 <= value < len(component.samples or ()):
            return value
        raise InputError(f"{name} must be the number of an example.")
    return value


def _number(name: str, value: Any, *, optional: bool) -> float | int | None:
    """Return a number, also one that was sent as text; raise InputError for anything else."""
    if value in (None, "") and optional:
        return None
    try:
        if isinstance(value, bool | list | dict) or value is None:
            raise ValueError
        number = value if isinstance(value, int | float) else float(value)
        if not math.isfinite(number) or abs(number) > 1e15:
            raise ValueError
    except (ValueError, OverflowError):
        raise InputError(f"{name} must be a number.") from None
    return int(number) if isinstance(value, str) and number == int(number) else number


async def _check_files(name: str, component: Component, value: Any, may_fetch: bool) -> None:
    """Raise InputError unless each file in `value` was uploaded; fetch those named by a URL.

    may_fetch: whether URLs are fetched, which are put into `value` as paths
    """
    if value is None:
        return
    several = getattr(component, "file_count", "single") != "single"
    if isinstance(component, FILES) and not isinstance(value, dict | list if several else dict):
        raise InputError(f"{name} must be an uploaded file.")
    files = _files(value)
    if len(files) > MAX_FILES:
        raise InputError(f"{name} has {len(files):,} files; at most {MAX_FILES}.")
    for file in files:
        path = file.get("path")
        if isinstance(path, str) and path.lower().startswith(WEB):
            if not may_fetch:
                raise InputError(f"{name} must be an uploaded file, not an address in the web.")
            path = await fetch_file(path)
            file.update(path=path, url=None, orig_name=os.path.basename(path))
        if not isinstance(path, str) or not os.path.isfile(path):
            raise InputError(f"{name} must be a file that was uploaded to this server before.")


def _files(value: Any) -> list[dict[str, Any]]:
    """Return the descriptions of files in a value: the objects that have a `path`."""
    if isinstance(value, dict):
        if "path" in value:
            return [value]
        return [file for inner in value.values() for file in _files(inner)]
    if isinstance(value, list):
        return [file for inner in value for file in _files(inner)]
    return []
