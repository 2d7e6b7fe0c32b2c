"""Kernels that failed while they ran: they are not tried again in this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

log = logging.getLogger(__name__)
BLACKLIST: dict[tuple[str, str], str] = {}  # (kind, backend): the reason
# On ZeroGPU the page runs without a GPU and each request in a fork with one: nothing can be tried
# out beforehand, a kernel that fails gives way when it is called.
ON_ZERO_GPU = bool(os.environ.get("SPACES_ZERO_GPU"))


class KernelFailed(RuntimeError):
    """A backend's own code failed. `kind`: "attention" or "GroupNorm"."""

    def __init__(self, kind: str, backend: str, reason: str):
        super().__init__(f"The {kind} backend {backend} failed at {reason}")
        self.kind, self.backend, self.reason = kind, backend, reason


def blacklist(failure: KernelFailed) -> None:
    """Exclude the backend for the rest of this process, with one warning that says why."""
    key = failure.kind, failure.backend
    if key not in BLACKLIST:
        log.warning("%s; it is not used again.", failure)
        BLACKLIST[key] = f"it failed at {failure.reason}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def wrap_kernel_errors(kind: str, backend: str, x: torch.Tensor) -> Iterator[None]:
    """Turn what a kernel raises on x into KernelFailed; torch.OutOfMemoryError is passed on."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers and drivers fail in ways of their own
        if "out of memory" in str(error).lower():  # Triton has its own exception for it
            raise torch.OutOfMemoryError(first_line(error)) from error
        where = f"{tuple(x.shape)} in {str(x.dtype).removeprefix('torch.')} on {x.device}"
        raise KernelFailed(kind, backend, f"{where}: {first_line(error)}") from error
