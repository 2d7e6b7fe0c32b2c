"""Text to image: from noise and words alone."""

from __future__ import annotations

from ..options import GenerateOptions as Options

__all__ = ["Options", "stream"]


def stream(models, options: Options, *, words: bool = False):
    """See engine.stream."""
    return models.stream(options, words=words)
