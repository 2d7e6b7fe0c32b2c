"""Text to image: from noise and a prompt alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..options import GenerateOptions as Options

if TYPE_CHECKING:
    from ..events import Events
    from ..model import Models

__all__ = ["Options", "stream"]


def stream(models: Models, options: Options, *, words: bool = False) -> Events:
    """Draw pictures from a prompt: yield a Step for each call of the model, then the Result.

    words: whether the Steps carry attention maps of the prompt's words.
    """
    return models.stream(options, words=words)
