"""What every kernel needs before it starts: which devices it serves, and its configuration.

A configuration is a dict of block sizes, warps and stages. `heuristic` functions beside each kernel
give one from shapes alone, so they can be tested anywhere; `kernels/tuned/<GPU name>.json`, written
by `python -m kernels.bench --tune`, overrides them. Nothing is tuned while a user waits.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

import torch

# Read once: Triton decides when a kernel is defined, so setting it later has no effect.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
TUNED = Path(__file__).with_name("tuned")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def device_problem(device: torch.device) -> str | None:
    """Why a kernel can't run on `device`, in one sentence; None where it can."""
    if device.type == "cuda":  # ROCm's devices have this type too
        return None
    if device.type == "cpu" and INTERPRETED:
        return None
    if device.type == "cpu":
        return (
            "Triton kernels need a CUDA or ROCm device, not cpu; to run them interpreted, set "
            "TRITON_INTERPRET=1 before Python starts."
        )
    return f"Triton kernels need a CUDA or ROCm device, not {device.type}."


def check_tensors(**tensors: torch.Tensor) -> None:
    """Raise ValueError unless all tensors share one device and one type that the kernels serve."""
    first, head = next(iter(tensors.items()))
    for name, x in tensors.items():
        if not isinstance(x, torch.Tensor):
            raise ValueError(f"{name} must be a tensor, not {type(x).__name__}.")
        if x.dtype not in DTYPES:
            raise ValueError(f"{name} has type {short(x.dtype)}; allowed are {types()}.")
        if x.dtype != head.dtype:
            raise ValueError(
                f"{name} has type {short(x.dtype)}, but {first} has {short(head.dtype)}: "
                "they must be the same."
            )
        if x.device != head.device:
            raise ValueError(
                f"{name} is on {x.device}, but {first} is on {head.device}: they must be the same."
            )
    problem = device_problem(head.device)
    if problem:
        raise ValueError(f"{first} is on {head.device}: {problem}")


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def types() -> str:
    return ", ".join(short(d) for d in DTYPES)


def bits(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits


def gpu_file(name: str) -> Path:
    """The file of tuned configurations for a GPU called `name`."""
    return TUNED / (re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_") + ".json")


@lru_cache
def gpu_name(index: int) -> str:
    return torch.cuda.get_device_name(index)


@lru_cache
def processors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


def multiprocessors(device: torch.device) -> int:
    """How many programs run side by side; a stand-in of 132 where there is no GPU."""
    if device.type != "cuda":
        return 132
    return processors(device.index if device.index is not None else torch.cuda.current_device())


@lru_cache
def _table(name: str) -> dict:
    path = gpu_file(name)
    if not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["configurations"]


def tuned(device: torch.device, key: str) -> dict | None:
    """The tuned configuration under `key` for this GPU; None where there is none."""
    if device.type != "cuda":
        return None
    index = device.index if device.index is not None else torch.cuda.current_device()
    return _table(gpu_name(index)).get(key)


def forget_tuned() -> None:
    """Read the files of tuned configurations again at the next launch."""
    _table.cache_clear()
