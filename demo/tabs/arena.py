"""Samplers and backends racing side by side."""

from __future__ import annotations


def tab(page) -> None:
    """Build the tab inside the page and wire it."""
