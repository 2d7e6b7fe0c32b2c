"""Keyword arguments that several of Gradio's event listeners share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import InputError

if TYPE_CHECKING:
    import gradio as gr

Value = TypeVar("Value", str, int)

# A listener that only the page uses: it is no endpoint of the web API, and shows no progress bar.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# A private listener that runs at once instead of waiting in the queue.
UNQUEUED: dict[str, Any] = PRIVATE | {"queue": False}
# A listener that uses the device: of all such listeners one runs at a time, in queue order.
GPU: dict[str, Any] = {"concurrency_id": "gpu", "concurrency_limit": 1}


def event_value(event: gr.EventData, name: str, kind: type[Value]) -> Value:
    """Return what the browser told about an event under `name`, such as what was clicked.

    kind: str or int, of the value; a string's length is at most 100,000. Raises InputError if the
    event has no such value.
    """
    data = event._data
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) or len(str(value)) > 100_000:
        what = "text" if kind is str else "a whole number"
        raise InputError(f"The event needs `{name}`, {what}.")
    return value
