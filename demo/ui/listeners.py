"""Keyword arguments that several of Gradio's event listeners share."""

from __future__ import annotations

from typing import Any

# A listener that only the page uses: it is no endpoint of the web API, and shows no progress bar.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# A private listener that runs at once instead of waiting in the queue.
UNQUEUED: dict[str, Any] = PRIVATE | {"queue": False}
# A listener that uses the device: of all such listeners one runs at a time, in queue order.
GPU: dict[str, Any] = {"concurrency_id": "gpu", "concurrency_limit": 1}
