"""From zero: how Stable Diffusion works, told with live tensors."""

from __future__ import annotations


def tab(page) -> None:
    """Build the tab inside the page and wire it."""
