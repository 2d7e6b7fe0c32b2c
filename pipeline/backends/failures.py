"""Kernels that failed while they ran: their backends are not used again in this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

log = logging.getLogger(__name__)
BLACKLIST: dict[tuple[str, str], str] = {}  # (kind, backend): the reason
# On ZeroGPU the page's process has no GPU, and each request runs in a fork that has one. So kernels
# cannot be tried beforehand; one that fails during a request is replaced then.
ON_ZERO_GPU = bool(os.environ.get("SPACES_ZERO_GPU"))


class KernelFailed(RuntimeError):
    """A backend's kernel raised an error while it ran; another backend may be tried instead.

    kind      "attention" or "GroupNorm"
    backend   the backend's name, such as "triton"
    reason    shape, dtype and device of the input, and the first line of the error
    """

    def __init__(self, kind: str, backend: str, reason: str):
        super().__init__(f"The {kind} backend {backend} failed at {reason}")
        self.kind, self.backend, self.reason = kind, backend, reason


def blacklist(failure: KernelFailed) -> None:
    """Exclude the backend of this failure for the rest of this process, with one logged warning."""
    key = failure.kind, failure.backend
    if key not in BLACKLIST:
        log.warning("%s; it is not used again.", failure)
        BLACKLIST[key] = f"it failed at {failure.reason}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type if that is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def wrap_kernel_errors(kind: str, backend: str, x: torch.Tensor) -> Iterator[None]:
    """In a `with` block, turn an error of a backend's kernel into KernelFailed.

    kind: "attention" or "GroupNorm". backend: the backend's name, such as "triton". x: the kernel's
    input, whose shape, dtype and device the message has. Running out of memory is raised as
    torch.OutOfMemoryError instead; a KernelFailed, of a backend that `backend` calls, is passed on.
    """
    try:
        yield
    except (torch.OutOfMemoryError, KernelFailed):
        raise
    except Exception as error:  # compilers and drivers raise errors of many types
        if "out of memory" in str(error).lower():  # Triton has its own exception for it
            raise torch.OutOfMemoryError(first_line(error)) from error
        where = f"{tuple(x.shape)} in {str(x.dtype).removeprefix('torch.')} on {x.device}"
        raise KernelFailed(kind, backend, f"{where}: {first_line(error)}") from error
