"""What every kernel needs before a launch: checks of device and dtype, and its configuration.

A configuration is a dict such as {"M": 64, "N": 32, "num_warps": 4, "num_stages": 2}: block sizes
and options of the Triton launch. Each kernel computes a default one from shapes alone, which can be
tested without a GPU. `kernels/tuned/<GPU name>.json`, written by `python -m kernels.bench --tune`,
overrides the default. Nothing is tuned at run time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

# Whether Triton interprets kernels on the CPU. Triton reads the variable when a kernel is defined,
# so setting it later has no effect.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
TUNED = Path(__file__).with_name("tuned")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Compute capability that a dtype needs; 7.5 is enough for the others.
MIN_CAPABILITY = {torch.bfloat16: (8, 0)}
log = logging.getLogger(__name__)


def device_problem(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Return in one sentence why Triton kernels can't run on `device`, or None if they can.

    With `dtype`, also check that the GPU supports that type; None checks the device alone.
    """
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
    """Raise ValueError unless a kernel can take the tensors: one device, one dtype, both supported.

    The names of the keyword arguments appear in the message: "k is on cpu, but q is on cuda:0:
    ...".
    """
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
    """Return the name of a dtype without its prefix: "float16" for torch.float16."""
    return str(dtype).removeprefix("torch.")


def dtype_names() -> str:
    """Return the supported dtypes for an error message: "float16, bfloat16, float32"."""
    return ", ".join(dtype_name(d) for d in DTYPES)


def bits(dtype: torch.dtype) -> int:
    """Return the number of bits of one value of a floating-point dtype: 16 for torch.float16."""
    return torch.finfo(dtype).bits


def tuned_path(name: str) -> Path:
    """Return the path of the JSON file with the tuned configurations of the GPU named `name`.

    A configuration has block sizes, warps and stages of a kernel. `name` is what
    torch.cuda.get_device_name returns. The file need not exist.
    """
    return TUNED / (re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_") + ".json")


@lru_cache
def gpu_name(index: int) -> str:
    """Return the name of CUDA device number `index`; cached."""
    return torch.cuda.get_device_name(index)


@lru_cache
def capability(index: int) -> tuple[int, int]:
    """Return the compute capability (major, minor) of CUDA device number `index`; cached."""
    return torch.cuda.get_device_capability(index)


_assumed_capability = [(9, 0)]  # of tensors without a GPU


def compute_capability(device: torch.device) -> tuple[int, int]:
    """Return a CUDA device's compute capability (major, minor), by which kernels are configured.

    For any other device return the one set by `assume_capability`, by default (9, 0), so that
    launches can be prepared without a GPU.
    """
    return capability(device_index(device)) if device.type == "cuda" else _assumed_capability[-1]


@contextlib.contextmanager
def assume_capability(major: int, minor: int) -> Iterator[None]:
    """In a `with` block, configure kernels for this compute capability where there is no GPU.

    Launches with tensors on other devices than CUDA ("cpu", "meta") are then prepared as on such a
    GPU. So kernels can be compiled for a GPU that is not there.
    """
    _assumed_capability.append((major, minor))
    try:
        yield
    finally:
        _assumed_capability.pop()


@lru_cache
def processors(index: int) -> int:
    """Return the number of streaming multiprocessors of CUDA device number `index`; cached."""
    return torch.cuda.get_device_properties(index).multi_processor_count


def device_index(device: torch.device) -> int:
    """Return the index of a CUDA device, or of the current CUDA device if `device` has none."""
    return device.index if device.index is not None else torch.cuda.current_device()


def multiprocessors(device: torch.device) -> int:
    """Return a CUDA device's number of streaming multiprocessors, by which kernels are configured.

    For any other device return 132, as on an H100, so that launches can be prepared without a GPU.
    """
    return processors(device_index(device)) if device.type == "cuda" else 132


def device_guard(x: torch.Tensor) -> contextlib.AbstractContextManager:
    """Return a context manager that makes x's CUDA device the current one; no-op on other devices.

    Triton launches on the current device, which need not be the one that holds x.
    """
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


@lru_cache
def load_table(name: str) -> dict[str, dict[str, Any]]:
    """Return the tuned configurations, by their names, of the GPU called `name`; cached.

    A configuration's name is for example "attention/forward/d40/qlong/k128/16" (kernel, head size,
    ranges of lengths, bits), its value such as {"M": 64, "N": 32, "num_warps": 4, "num_stages": 2}.
    The dict is empty if the GPU has no file and, with a logged warning, if the file is invalid.
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
    """Return the name of a tuned configuration in today's spelling.

    Files written by older versions say "/leaves" where names now say "/parts".
    """
    return key.replace("/leaves", "/parts")


def tuned_config(device: torch.device, key: str, like: dict[str, Any]) -> dict[str, Any] | None:
    """Return the configuration that was tuned for this GPU under the name `key`, or None.

    For example {"M": 64, "N": 32, "num_warps": 4, "num_stages": 2} for the name
    "attention/forward/d40/qlong/k128/16". One that does not have the fields and types of `like`,
    the default configuration, or whose values are not valid is ignored. None if `device` is not
    CUDA.
    """
    if device.type != "cuda":
        return None
    config = load_table(gpu_name(device_index(device))).get(key)
    return config if config is None or _has_form_of(config, like) else None


def _has_form_of(config: object, like: dict[str, Any]) -> bool:
    if not isinstance(config, dict) or config.keys() != like.keys():
        return False
    for name, value in config.items():
        if type(value) is not type(like[name]):
            return False
        if isinstance(value, bool):
            continue
        if value < 1 or (name.isupper() and (value < 16 or value & (value - 1))):
            return False  # upper-case fields are sides of a block: powers of two, at least 16
    return True


def clear_tuned_cache() -> None:
    """Forget the tuned configurations read so far: the next launch reads the files again."""
    load_table.cache_clear()
