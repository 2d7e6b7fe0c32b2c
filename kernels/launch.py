"""What every kernel needs before a launch: which devices it runs on, and its configuration.

A configuration is a dict of block sizes, warps and stages. The `heuristic` of each
kernel gives one from shapes alone, so it can be tested anywhere; `kernels/tuned/<GPU name>.json`,
written by `python -m kernels.bench --tune`, overrides it. Nothing is tuned at run time.
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
MIN_CAPABILITY = {torch.bfloat16: (8, 0)}  # compute capability; 7.5 for the other types
log = logging.getLogger(__name__)


def device_problem(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Return in one sentence why a kernel can't run on `device` in `dtype`, None where it can."""
    if device.type == "cuda":  # ROCm's devices have this type too
        needed = MIN_CAPABILITY.get(dtype, (7, 5)) if dtype else (7, 5)
        if torch.version.hip or capability(device_index(device)) >= needed:
            return None
        what = f" in {dtype_name(dtype)}" if dtype in MIN_CAPABILITY else ""
        have = ".".join(map(str, capability(device_index(device))))
        return (
            f"Triton kernels{what} need compute capability {needed[0]}.{needed[1]} or newer; "
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
    """Raise ValueError unless the tensors share a device and a type that kernels can use."""
    first, head = next(iter(tensors.items()))
    for name, x in tensors.items():
        if not isinstance(x, torch.Tensor):
            raise ValueError(f"{name} must be a tensor, not {type(x).__name__}.")
        if x.dtype not in DTYPES:
            raise ValueError(f"{name} has type {dtype_name(x.dtype)}; allowed are {dtype_names()}.")
        if x.dtype != head.dtype:
            raise ValueError(
                f"{name} has type {dtype_name(x.dtype)}, but {first} has {dtype_name(head.dtype)}: "
                "they must be the same."
            )
        if x.device != head.device:
            raise ValueError(
                f"{name} is on {x.device}, but {first} is on {head.device}: they must be the same."
            )
    problem = device_problem(head.device, head.dtype)
    if problem:
        raise ValueError(f"{first} is on {head.device}: {problem}")


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float16" for torch.float16."""
    return str(dtype).removeprefix("torch.")


def dtype_names() -> str:
    """Return the names of the types that the kernels take, for a sentence."""
    return ", ".join(dtype_name(d) for d in DTYPES)


def bits(dtype: torch.dtype) -> int:
    """Return the bits of one value."""
    return torch.finfo(dtype).bits


def tuned_path(name: str) -> Path:
    """Return the file of tuned configurations of the GPU `name`."""
    return TUNED / (re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_") + ".json")


@lru_cache
def gpu_name(index: int) -> str:
    """Return the name of CUDA device `index`, kept."""
    return torch.cuda.get_device_name(index)


@lru_cache
def capability(index: int) -> tuple[int, int]:
    """Return the compute capability of CUDA device `index`, kept."""
    return torch.cuda.get_device_capability(index)


@lru_cache
def processors(index: int) -> int:
    """Return the number of multiprocessors of CUDA device `index`, kept."""
    return torch.cuda.get_device_properties(index).multi_processor_count


def device_index(device: torch.device) -> int:
    """Return the index of a CUDA device; the current one's where it names none."""
    return device.index if device.index is not None else torch.cuda.current_device()


def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors of `device`; 132, an H100's, where it is no GPU."""
    return processors(device_index(device)) if device.type == "cuda" else 132


def device_guard(x: torch.Tensor) -> contextlib.AbstractContextManager:
    """Return a context that makes the device of x the current one, on which Triton launches."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


@lru_cache
def load_table(name: str) -> dict[str, dict]:
    """Read the tuned configurations of the GPU `name`; none where there is no file.

    A file that can't be used is passed over with a warning.
    """
    path = tuned_path(name)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))["configurations"]
        if not isinstance(table, dict):
            raise ValueError("its configurations are no table")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s can't be used and is passed over: %r", path, error)
        return {}
    return {current_key(k): v for k, v in table.items()}


def current_key(key: str) -> str:
    """Return `key` as it is spelled now: files of older versions say `leaves` for `parts`."""
    return key.replace("/leaves", "/parts")


def tuned_config(device: torch.device, key: str, like: dict) -> dict | None:
    """Return the tuned configuration of `device` under `key`, None where there is none.

    One that has not the same fields and types as `like`, the heuristic's, counts as none.
    """
    if device.type != "cuda":
        return None
    found = load_table(gpu_name(device_index(device))).get(key)
    return found if found is None or _has_form_of(found, like) else None


def _has_form_of(found: object, like: dict) -> bool:
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


def clear_tuned_cache() -> None:
    """Make the next launch read the files of tuned configurations again."""
    load_table.cache_clear()
