"""The order in which `auto` tries backends: by what was measured on this kind of device.

What was measured lies in kernels/bench/results, written by `python -m kernels.bench --json`. Where
nothing was measured on such a device, the order is that of the rows' ranks: our kernels are not
first on a GPU on which nobody has measured them.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from .table import KINDS


@lru_cache
def order(kind: str, device: torch.device) -> tuple[str, ...]:
    """Return the names of backends, the fastest first. kind: "attention" or "group_norm"."""
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
    """Return how many times as long as the fastest each provider took on such a GPU; {} where
    nothing was measured."""
    try:
        from kernels.bench import results
    except ImportError:
        return {}
    measured = results.rows_for_gpu(
        torch.cuda.get_device_name(device),
        None if torch.version.hip else torch.cuda.get_device_capability(device),
    )
    return results.slowdown(measured, kind, "forward") if measured else {}
