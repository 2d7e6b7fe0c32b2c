"""Chapter v: the whole."""

from __future__ import annotations

from . import parts


def chapter(page) -> None:
    """Fill the step with components and wire them."""
    parts.prose(page.i18n, "zero_whole_title")
