"""When a device's memory runs out: free what nobody holds, then try a way that needs less."""

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


def free_memory() -> None:
    """Give back what every device caches. Not inside `except`, whose traceback holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what failed: on CPUs and Apple's GPUs PyTorch has no exception for it."""
    phrases = ("out of memory", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )


def retry_on_oom(call: Callable[[], T], *fallbacks: Callable[[], T]) -> T:
    """Return what `call` returns, or what the first fallback returns that fits into memory.

    Each fallback needs less memory than the one before. torch.OutOfMemoryError where none fits.
    """
    for attempt in (call, *fallbacks):
        try:
            return attempt()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        free_memory()
    raise torch.OutOfMemoryError("out of memory")
