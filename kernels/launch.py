"""What every kernel needs before it starts: which devices it serves, and its configuration.

A configuration is a dict of block sizes, warps and stages. `heuristic` functions beside each kernel
give one from shapes alone, so they can be tested anywhere; `kernels/tuned/<GPU name>.json`, written
by `python -m kernels.bench --tune`, overrides them. Nothing is tuned while a user waits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from functools import lru_cache
from pathlib import Path

import torch

# Read once: Triton decides when a kernel is defined, so setting it later has no effect.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
TUNED = Path(__file__).with_name("tuned")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OLDEST = {torch.bfloat16: (8, 0)}  # compute capability; 7.5 for the other types
log = logging.getLogger(__name__)


def device_problem(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why a kernel can't run on `device` in `dtype`, in one sentence; None where it can."""
    if device.type == "cuda":  # ROCm's devices have this type too
        oldest = OLDEST.get(dtype, (7, 5))
        if torch.version.hip or capability(index_of(device)) >= oldest:
            return None
        what = f" in {short(dtype)}" if dtype in OLDEST else ""
        have = ".".join(map(str, capability(index_of(device))))
        return (
            f"Triton kernels{what} need compute capability {oldest[0]}.{oldest[1]} or newer; "
            f"{device} has {have}."
        )
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
    problem = device_problem(head.device, head.dtype)
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
def capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


@lru_cache
def processors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


def index_of(device: torch.device) -> int:
    return device.index if device.index is not None else torch.cuda.current_device()


def multiprocessors(device: torch.device) -> int:
    """How many programs run side by side; a stand-in of 132 where there is no GPU."""
    return processors(index_of(device)) if device.type == "cuda" else 132


def on_device_of(x: torch.Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device; while this is open, that is the one of x."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


@lru_cache
def _table(name: str) -> dict:
    path = gpu_file(name)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))["configurations"]
        if not isinstance(table, dict):
            raise ValueError("its configurations are no table")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s can't be used and is passed over: %r", path, error)
        return {}
    return table


def tuned(device: torch.device, key: str, like: dict) -> dict | None:
    """The tuned configuration under `key` for this GPU; None where there is none, or one that has
    not the fields and types of `like`, the heuristic's."""
    if device.type != "cuda":
        return None
    found = _table(gpu_name(index_of(device))).get(key)
    return found if found is None or _is_like(found, like) else None


def _is_like(found, like: dict) -> bool:
    if not isinstance(found, dict) or found.keys() != like.keys():
        return False
    for name, value in found.items():
        if type(value) is not type(like[name]):
            return False
        if isinstance(value, bool):
            continue
        if value < 1 or (name.isupper() and (value < 16 or value & (value - 1))):
            return False  # M, N: sides of a block, powers of two
    return True


def forget_tuned() -> None:
    """Read the files of tuned configurations again at the next launch."""
    _table.cache_clear()
