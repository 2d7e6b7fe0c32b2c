"""Look inside a picture: its steps, its words, its branches."""

from __future__ import annotations


def tab(page) -> None:
    """Build the tab inside the page and wire it."""
