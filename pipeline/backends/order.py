"""The order in which "auto" tries backends: by the speed measured on GPUs like this one.

The measurements are in kernels/bench/results, written by `python -m kernels.bench --json`. Without
any for such a GPU, the order is that of the field `rank` in the tables: this project's kernels are
not first on a GPU on which nobody has measured them.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from .table import KINDS


@lru_cache
def order(kind: str, device: torch.device) -> tuple[str, ...]:
    """Return the names of the backends that "auto" may use on `device`, the fastest first.

    kind: the operation, "attention" or "group_norm". Speeds are those measured on a GPU like
    `device`. Whether a backend can run is not checked. Last come those to use only if no other can
    run.
    """
    table = KINDS[kind].table
    default_order = sorted(
        (
            name
            for name, row in table.items()
            if not row.fallback and (row.auto_on is None or device.type in row.auto_on)
        ),
        key=lambda name: table[name].rank,
    )
    slowdown = _slowdown(kind, device) if device.type == "cuda" else {}
    ranked = sorted(default_order, key=lambda n: slowdown.get(table[n].provider or n, float("inf")))
    return (*ranked, *(name for name, row in table.items() if row.fallback))


def _slowdown(kind: str, device: torch.device) -> dict[str, float]:
    """Return a dict from each backend to its time divided by the fastest one's, to order them by.

    kind: the operation, "attention" or "group_norm". The times were measured on a GPU like
    `device`; empty if there are none, not even on one of the same compute capability. Keys are the
    names that the benchmark uses ("ours", "sdpa").
    """
    try:
        from kernels.bench import results
    except ImportError:
        return {}
    measured = results.rows_for_gpu(
        torch.cuda.get_device_name(device),
        None if torch.version.hip else torch.cuda.get_device_capability(device),
    )
    return results.slowdown(measured, kind, "forward") if measured else {}
