"""Keyword arguments that several of Gradio's event listeners share."""

from __future__ import annotations

from typing import Any

# Listeners of the page alone: clients of the web API do not see them.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# Those that answer at once, beside the queue.
UNQUEUED: dict[str, Any] = PRIVATE | {"queue": False}
# Every listener that uses the device: one at a time, in the order of the queue.
GPU: dict[str, Any] = {"concurrency_id": "gpu", "concurrency_limit": 1}
