"""Support for ZeroGPU, where a Hugging Face Space gets a GPU only for the seconds it requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

Work = Callable[..., Iterator[Any]]  # a generator function that uses the device
# On ZeroGPU each call of a Work runs in a process of its own: its changes in memory are lost.
ON_ZERO_GPU = bool(os.environ.get("SPACES_ZERO_GPU"))
MAX_SECONDS = 300  # the longest time that is requested


def wrap_gpu_work(work: Work) -> Work:
    """Decorate a generator function that uses the device, so that it gets a GPU on ZeroGPU.

    There each call requests a GPU for as many seconds as `estimate_seconds` returns for the same
    arguments; elsewhere `work` is returned unchanged.
    """
    if not ON_ZERO_GPU:
        return work
    import spaces

    return spaces.GPU(duration=estimate_seconds)(work)


def estimate_seconds(
    task: str = "",
    options: Any = None,
    names: tuple = (),
    folder: str = "",
    entries: Any = (),
    *_: Any,
) -> int:
    """Estimate for how many seconds to request the GPU on ZeroGPU for a call, at most MAX_SECONDS.

    ZeroGPU passes the arguments of the call; the parameters here are in the order that functions
    for drawing pictures have. If `options` has no field `steps`, the call draws none and gets 60
    seconds. A picture of 512x512 pixels is reckoned to take 0.1 seconds a UNet call.
    task: key of the task, or "arena" for a race: several samplers or backends draw one picture
    options: the task's Options
    entries: what takes part in a race: samplers, or pairs of an attention and a GroupNorm backend
    names, folder and any further arguments: not used
    """
    if not hasattr(options, "steps"):
        return 60
    from .work import count_work

    return int(min(10 + 0.1 * count_work(task, options, entries) / 512**2, MAX_SECONDS))
