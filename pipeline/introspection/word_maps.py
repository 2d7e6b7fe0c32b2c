"""The mean of a recorded picture's cross-attention word maps over its model calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .recording import Recording


def average_word_maps(recording: Recording, call: int = -1) -> list[torch.Tensor]:
    """Return a recorded picture's cross-attention maps of the prompt's words, for one or all calls.

    call: index of the model call, from 0; -1 for the mean over all calls that had the same words as
    the last call. Returns one tensor (words, h, w) fp32 for each resolution of the UNet's layers,
    coarsest first, and last the mean over all layers; [] if no maps were recorded.
    """
    model_calls = recording.calls
    if call >= 0:
        model_calls = model_calls[call : call + 1]
    last = model_calls[-1]
    if last.maps is None:
        return []
    same = [m for m in model_calls if m.words == last.words]
    rows = [[*m.grids, m.maps] for m in same]
    return [torch.stack([r.float() for r in column]).mean(0) for column in zip(*rows, strict=True)]
