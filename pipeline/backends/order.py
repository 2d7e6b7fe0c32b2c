"""The order in which "auto" tries backends: by the speed measured on GPUs like this one.

The measurements are in kernels/bench/results, written by `python -m kernels.bench --json`. Without
any for such a GPU, the order is that of the field `rank` in the tables: this project's kernels are
not first on a GPU on which nobody has measured them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch

from .table import KINDS


@lru_cache
def order(kind: str, device: torch.device) -> tuple[str, ...]:
    """Return the names of the backends that "auto" may use on `device`, in order of preference.

    kind: the operation, "attention" or "group_norm". If speeds were measured on a GPU like
    `device`, the fastest come first; for attention "per_shape" stands before them, which calls the
    fastest of the others for each shape. This project's kernels come after the others where a whole
    UNet call was slower with them. Without measurements the order is a fixed one. Last come
    backends to use only if no other can run. Whether a backend can run is not checked.
    """
    table, slowdown = KINDS[kind].table, _slowdown(kind, device)
    default_order = sorted(
        (
            name
            for name, row in table.items()
            if not row.fallback and (row.auto_on is None or device.type in row.auto_on)
        ),
        key=lambda name: table[name].rank,
    )
    combining = [name for name in default_order if table[name].combines]
    slowdown |= dict.fromkeys(combining, 0.0 if slowdown else math.inf)
    ranked = sorted(default_order, key=lambda n: slowdown.get(table[n].provider or n, math.inf))
    if is_slower_eagerly(device):  # pictures are drawn eagerly
        ranked.sort(key=lambda n: table[n].provider == "ours")
    return (*ranked, *(name for name, row in table.items() if row.fallback))


def measured_rows(device: torch.device) -> list[dict[str, Any]]:
    """Return the measurements (Row.as_dict) in kernels/bench/results from a GPU like `device`.

    They are of the same GPU, else of one of the same compute capability; empty if there are none,
    and for other devices than GPUs.
    """
    try:
        from kernels.bench import results
    except ImportError:
        return []
    if device.type != "cuda":
        return []
    capability = None if torch.version.hip else torch.cuda.get_device_capability(device)
    return results.rows_for_gpu(torch.cuda.get_device_name(device), capability) or []


def is_slower_eagerly(device: torch.device) -> bool:
    """Return whether a UNet was slower with our kernels on a GPU like `device`, without CUDA graph.

    A kernel that is the faster one on the GPU can still lose by the host's time for each launch.
    False where nothing was measured.
    """
    rows = measured_rows(device)
    if not rows:
        return False
    from kernels.bench import results

    return results.is_slower_eagerly(rows)


def _slowdown(kind: str, device: torch.device) -> dict[str, float]:
    """Return a dict from each backend to its time divided by the fastest one's, to order them by.

    kind: the operation, "attention" or "group_norm". The times were measured on a GPU like
    `device`; empty if there are none. Keys are the names that the benchmark uses ("ours", "sdpa").
    """
    rows = measured_rows(device)
    if not rows:
        return {}
    from kernels.bench import results

    return results.slowdown(rows, kind, "forward")
