"""The attention backend "per_shape": at each shape the fastest other backend, as measured.

The times are those of kernels/bench/results for this GPU, or for one of the same compute
capability. Shapes are grouped by head size and by the ranges of sequence lengths that share a tuned
configuration (`kernels.attention.tiling.length_class`). The choice depends on shape, device and
dtype, and on which backends can run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch

from . import failures
from .order import is_slower_eagerly, measured_rows
from .table import ATTENTION

EQUAL = 1.03  # times whose ratio is at most this count as equal: the field `rank` decides
# device, dtype, head size, ranges of the numbers of queries and keys (see `length_class`), and
# whether each kernel is launched by the host
Shape = tuple[torch.device, torch.dtype, int, str, str, bool]
_fixed: ContextVar[dict[Shape, str] | None] = ContextVar("fixed", default=None)


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why the attention backend "per_shape" cannot run, or None if it can.

    For each shape it calls the backend that was measured as the fastest on a GPU like `device`. It
    cannot run where there are no such measurements for a dtype with as many bits as `dtype`.
    head_size is ignored: there is a backend for every head size.
    """
    if device.type != "cuda":
        return f"per_shape goes by the measured speeds of GPUs, and the device is {device.type}."
    try:
        from kernels.attention import tiling  # noqa: F401 (it imports triton)
    except ImportError:
        return "triton is not installed here."
    if _rows(device, dtype):
        return None
    kind = str(dtype).removeprefix("torch.")
    return (
        f"per_shape has no measured speeds of attention in {kind} on a "
        f"{torch.cuda.get_device_name(device)} or another GPU of its compute capability; "
        "python -m kernels.bench measures them."
    )


def backward_unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str:
    """Return in one sentence why the backend "per_shape" can never train.

    The arguments are not used. It calls the backend that was the fastest for the shape, by times of
    the forward pass alone.
    """
    return "it goes by the speeds of the forward pass alone."


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return attention of q (B, Tq, H, D) to k and v (B, Tk, H, D), shaped like q.

    The backend measured as the fastest for the shape computes it. Raises KernelFailed, which names
    the backend that `choose` returned, if that backend fails.
    """
    name = choose(q, k)
    guard = failures.wrap_kernel_errors("attention", name, q)
    with guard if ATTENTION[name].may_fail else nullcontext():
        return ATTENTION[name].run(q, k, v)


def choose(q: torch.Tensor, k: torch.Tensor) -> str:
    """Return the name of the fastest backend that can run for q (B, Tq, H, D) and k (B, Tk, H, D).

    Fastest by the measurements of a GPU like q's. These are times without the host's; so a call
    that is neither compiled nor captured into a CUDA graph leaves out this project's kernels, if a
    whole UNet call was slower with them on such a GPU. A backend cannot run if its `unsupported`
    says so or if it failed earlier in this process.
    """
    from kernels.attention.tiling import length_class  # it imports triton

    ranges = length_class(q.shape[1]), length_class(k.shape[1])
    return _choose(q.device, q.dtype, q.shape[3], *ranges, launched_by_host(q.device))


def launched_by_host(device: torch.device) -> bool:
    """Return whether kernels called now on `device` are launched one by one, by the host.

    Not so while torch.compile traces or a CUDA graph is captured. False for devices that are no
    GPU.
    """
    if device.type != "cuda" or torch.compiler.is_compiling():
        return False
    return not torch.cuda.is_current_stream_capturing()


@contextmanager
def fixed_choices(choices: dict[Shape, str]) -> Iterator[None]:
    """In a `with` block, "per_shape" keeps the attention backend that it has chosen for a shape.

    "per_shape" uses for each shape the fastest backend that can run. A request is drawn inside such
    a block, so that it does not change to a faster backend that becomes usable meanwhile. choices:
    from shape to the backend's name; what is chosen for further shapes in the block is added.
    """
    token = _fixed.set(choices)
    try:
        yield
    finally:
        _fixed.reset(token)


@torch.compiler.assume_constant_result  # torch.compile calls it once, when it traces a shape
def _choose(
    device: torch.device, dtype: torch.dtype, head_size: int, queries: str, keys: str, by_host: bool
) -> str:
    shape, fixed = (device, dtype, head_size, queries, keys, by_host), _fixed.get()
    left_out = "ours" if by_host and is_slower_eagerly(device) else ""
    if fixed is not None and shape in fixed:
        return fixed[shape]
    name = next(
        name
        for name in ranking(*shape[:-1])
        if ATTENTION[name].provider != left_out
        and ("attention", name) not in failures.BLACKLIST
        and ATTENTION[name].unsupported(device, dtype, head_size) is None
    )
    if fixed is not None:
        fixed[shape] = name
    return name


@lru_cache
def ranking(
    device: torch.device, dtype: torch.dtype, head_size: int, queries: str, keys: str
) -> tuple[str, ...]:
    """Return the names of the attention backends, the fastest for such shapes first; cached.

    The order comes from stored measurements of a GPU like `device`. If they lack this head size at
    these lengths, those of the nearest head size are used; if they have no head size at these
    lengths, the mean over all shapes. Backends without a time come last. "per_shape" itself and
    backends that ever gave a wrong answer are left out. Whether a backend can run is not checked.

    queries, keys: the ranges that the numbers of queries and keys fall into, named by the largest
    number: "16", "128", "512", "2048" or "long".
    """
    from kernels.attention.tiling import length_class
    from kernels.bench import results

    rows = _rows(device, dtype)
    measured: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        sizes = results.attention_sizes(row["shape"])
        if not sizes:
            continue
        if (length_class(sizes.queries), length_class(sizes.keys)) == (queries, keys):
            measured.setdefault(sizes.head_size, []).append(row)
    if measured:
        nearest = min(measured, key=lambda size: (abs(size - head_size), size))
        times = results.slowdown(measured[nearest], "attention", "forward")
    else:
        times = results.slowdown(rows, "attention", "forward")
    wrong = results.wrong_providers(rows, "attention", "forward")
    rest = {
        name: row.provider or name
        for name, row in ATTENTION.items()
        if not row.combines
        and (row.auto_on is None or device.type in row.auto_on)
        and (row.provider or name) not in wrong
    }
    out: list[str] = []
    while rest:
        least = min(times.get(provider, math.inf) for provider in rest.values())
        first = min(
            (n for n, provider in rest.items() if times.get(provider, math.inf) <= EQUAL * least),
            key=lambda name: (ATTENTION[name].fallback, ATTENTION[name].rank),
        )
        out.append(first)
        del rest[first]
    return tuple(out)


def _rows(device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Return how fast each attention backend was on a GPU like `device`, to rank the backends.

    They are the stored measurements of the forward pass with dtypes of as many bits as `dtype`: a
    dict (Row.as_dict) for each implementation and shape.
    """
    alike = {
        str(other).removeprefix("torch.")
        for other in (torch.float16, torch.bfloat16, torch.float32)
        if other.itemsize == dtype.itemsize
    }
    return [
        row
        for row in measured_rows(device)
        if (row["kernel"], row["mode"]) == ("attention", "forward") and row["dtype"] in alike
    ]
