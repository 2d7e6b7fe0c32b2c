"""Handle running out of device memory: free cached memory, then try a call that needs less."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from .errors import InputError

T = TypeVar("T")
# Warnings for a Result that was computed by a fallback.
GUIDANCE_SPLIT = (
    "Memory ran short: guidance was computed in two calls, which may change the last bits."
)
DECODED_IN_TILES = "Memory ran short: the picture was decoded in tiles."


class DeviceOutOfMemory(InputError):
    """Raised when a model does not fit into the free memory of its device while it is loaded."""


def free_memory() -> None:
    """Run the garbage collector and empty PyTorch's caches of the CUDA and MPS devices.

    Do not call it inside `except`: the exception's traceback keeps tensors alive.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an exception says that memory ran out, on any device.

    On CPUs and Apple's GPUs PyTorch raises a RuntimeError, which is recognized by its message.
    """
    phrases = ("out of memory", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )


def retry_on_oom(call: Callable[[], T], *fallbacks: Callable[[], T]) -> T:
    """Call `call`; each time that memory runs out, free memory and call the next of `fallbacks`.

    Returns the first result. Fallbacks are ordered by the memory that they need, most first. Raises
    torch.OutOfMemoryError if memory runs out in all of them; other errors are passed on.
    """
    for attempt in (call, *fallbacks):
        try:
            return attempt()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        free_memory()
    raise torch.OutOfMemoryError("out of memory")
