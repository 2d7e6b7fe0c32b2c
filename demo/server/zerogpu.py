"""Hugging Face's ZeroGPU: a GPU that a Space gets for the seconds that a request asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

Work = Callable[..., Iterator[Any]]
# There, work runs in a process of its own, and what it holds in memory is lost with it.
ON_ZERO_GPU = bool(os.environ.get("SPACES_ZERO_GPU"))
MAX_SECONDS = 300


def wrap_gpu_work(work: Work) -> Work:
    """Return `work`, a generator function, as it runs on this server's device.

    On ZeroGPU each call gets a GPU for `estimate_seconds`; elsewhere `work` is returned as it is.
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
    """Return for how many seconds a call of `Runner.on_device`'s work needs the GPU.

    The arguments are those of the call. options: the task's Options, or anything else for work
    that draws no picture.
    """
    if not hasattr(options, "steps"):
        return 60
    pixels = (options.width or 512) * (options.height or 512) / 512**2
    from pipeline import tasks

    if task in tasks.TASKS:
        pixels *= tasks.cost(task, options)
    if task == "arena":
        from pipeline.introspection import arena

        pixels *= arena.max_calls(entries, options.steps) / options.steps
    return int(min(10 + 0.1 * (options.steps or 20) * pixels * options.count, MAX_SECONDS))
