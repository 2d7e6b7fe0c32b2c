"""Build and serve the browser page and the web API, with Gradio on top of the pipeline.

page = build(ModelCache(load("emoji")))
serve(page, server_port=7860)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .serving import build, serve

__all__ = ["build", "serve"]


def __getattr__(name: str) -> Any:
    """Import `build` and `serve` at their first use, so that `demo.limits` is read without Gradio.

    Raises AttributeError for any other name.
    """
    if name in __all__:
        from . import serving

        return getattr(serving, name)
    raise AttributeError(f"module 'demo' has no attribute {name!r}")
