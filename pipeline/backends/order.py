"""The order in which `auto` tries backends: by what was measured on this kind of device.

What was measured lies in kernels/bench/results, written by `python -m kernels.bench --json`. Where
nothing was measured on a device of this kind, the order is BEFORE.
"""

from __future__ import annotations

from functools import lru_cache

import torch

# Our kernels are not first on a GPU on which nobody has measured them.
BEFORE = {
    ("attention", "cuda"): ("sdpa", "xformers", "triton"),
    ("attention", ""): ("sdpa",),
    ("group_norm", "cuda"): ("torch", "triton"),
    ("group_norm", ""): ("torch",),
}
LAST = {"attention": ("math",), "group_norm": ()}  # holds the whole matrix of weights in memory
PROVIDER = {  # what the benchmark calls a backend
    ("attention", "triton"): "ours",
    ("attention", "sdpa"): "sdpa",
    ("attention", "xformers"): "xformers",
    ("group_norm", "triton"): "ours",
    ("group_norm", "torch"): "torch eager",
}


@lru_cache
def order(kind: str, device: torch.device) -> tuple[str, ...]:
    """Names of backends, the fastest first. kind: "attention" or "group_norm"."""
    names = BEFORE.get((kind, device.type)) or BEFORE[kind, ""]
    slower = {}
    if device.type == "cuda":
        try:
            from kernels.bench import results
        except ImportError:
            results = None
        measured = results and results.rows_for_gpu(
            torch.cuda.get_device_name(device),
            None if torch.version.hip else torch.cuda.get_device_capability(device),
        )
        slower = results.slowdown(measured, kind, "forward") if measured else {}
    ranked = sorted(names, key=lambda n: slower.get(PROVIDER[kind, n], float("inf")))
    return (*ranked, *LAST[kind])
