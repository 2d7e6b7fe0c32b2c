"""Draw the loss of a training as an inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from ..texts import say

WIDTH, HEIGHT = 320, 60  # of the SVG's viewBox; the page stretches it


def loss_curve(losses: Sequence[float], language: str) -> str:
    """Return HTML with the loss over the steps as a line, and its first and last value below.

    losses: one for each step. The vertical axis runs from their minimum to their maximum.
    Returns "" for fewer than two losses.
    """
    if len(losses) < 2:
        return ""
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0
    points = " ".join(
        f"{i * WIDTH / (len(losses) - 1):.1f},{HEIGHT - (loss - low) / span * HEIGHT:.1f}"
        for i, loss in enumerate(losses)
    )
    caption = say("loss_curve", language, first=losses[0], last=losses[-1])
    return (
        f'<figure class="gb-loss"><svg viewBox="-2 -2 {WIDTH + 4} {HEIGHT + 4}" role="img"'
        f' aria-label="{caption}" preserveAspectRatio="none"><polyline points="{points}"/></svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
