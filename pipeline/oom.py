"""When a device's memory runs out: free what nobody holds, then try the sparing way."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from .errors import InputError

T = TypeVar("T")
# Warnings of a result for which memory ran short.
GUIDANCE_SPLIT = (
    "Memory ran short: guidance was computed in two calls, which may change the last bits."
)
DECODED_IN_TILES = "Memory ran short: the picture was decoded in tiles."


class DeviceOutOfMemory(InputError):
    """A model does not fit into the free memory of its device."""


def free() -> None:
    """Give back what every device caches. Not inside `except`, whose traceback holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def ran_out(error: Exception) -> bool:
    """Whether memory is what failed: on CPUs and Apple's GPUs PyTorch has no exception for it."""
    told = ("out of memory", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in told)
    )


def sparing(call: Callable[[], T], *sparer: Callable[[], T]) -> T:
    """What `call` returns; where memory runs out, what the first of `sparer` returns that fits.

    torch.OutOfMemoryError where none does.
    """
    for attempt in (call, *sparer):
        try:
            return attempt()
        except Exception as error:
            if not ran_out(error):
                raise
        free()
    raise torch.OutOfMemoryError("out of memory")
