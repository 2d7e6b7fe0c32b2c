"""Verdicts: the configurations of our kernels that `python -m kernels.check` found right on a GPU.

A verdict is a JSON file for one GPU (name and compute capability), one version of Triton and one
state of the kernels' code (`code_hash`); the driver's and torch's versions are recorded too. The
shipped ones lie in kernels/verdicts/, those of this machine in the user's cache folder. A result
belongs to a place, which names a kernel, a head size or layout and a dtype:

    attention/forward/d40/float16      {"M": 128, "N": 64, "num_warps": 4, "num_stages": 3}
    attention/dkv/d40/float16, attention/dq/d40/float16        (backward)
    word_attention/d40/float16         {"M": 64, "SPLIT": true, "num_warps": 4, "num_stages": 2}
    group_norm/forward/NHWC/float16    {"one_launch": false}
    group_norm/backward/NHWC/float16   {}

A configuration is right if it was right at every shape at which it was checked.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .launch import INTERPRETED, capability, device_index, gpu_name

SHIPPED = Path(__file__).with_name("verdicts")
FORMAT = 1  # of the file
log = logging.getLogger(__name__)
Config = dict[str, Any]


class NoRightConfiguration(RuntimeError):
    """Every configuration that a launch could use failed `kernels.check` on this GPU."""


class Machine(NamedTuple):
    """What a verdict is valid for. capability: "9.0", or "gfx942" of an AMD GPU."""

    gpu: str
    capability: str
    triton: str
    code: str


@dataclass(frozen=True)
class Result:
    """The check of one configuration at one shape.

    error, allowed: largest absolute error and its limit, NaN where nothing could be compared.
    note: "ok", "WRONG", "CRASHED", "HUNG", "UNEQUAL" (two runs gave other bits) or "FAILED: why".
    """

    place: str
    config: Config
    shape: str
    error: float
    allowed: float
    note: str

    @property
    def right(self) -> bool:
        """Whether the answer was right."""
        return self.note == "ok"


@dataclass(frozen=True)
class Verdict:
    """All results for one machine. recorded: driver, torch, date and seconds of the check."""

    machine: Machine
    results: tuple[Result, ...]
    recorded: dict[str, Any] = field(default_factory=dict)

    def configurations(self, place: str, *, right: bool) -> list[Config]:
        """Return the configurations of `place` that were right everywhere, or those that failed."""
        failed = [r.config for r in self.results if r.place == place and not r.right]
        if not right:
            return failed
        return [
            r.config
            for r in self.results
            if r.place == place and r.right and r.config not in failed
        ]

    @property
    def places(self) -> set[str]:
        """The places with at least one result."""
        return {r.place for r in self.results}


def machine_of(device: torch.device) -> Machine:
    """Return what a verdict for the CUDA or ROCm device must be valid for."""
    import triton

    from .code_hash import code_hash

    index = device_index(device)
    if torch.version.hip:
        architecture = torch.cuda.get_device_properties(index).gcnArchName.partition(":")[0]
    else:
        architecture = ".".join(map(str, capability(index)))
    return Machine(gpu_name(index), architecture, triton.__version__, code_hash())


def user_folder() -> Path:
    """Return the folder for verdicts of this machine: $GLASSBOX_VERDICTS or the user's cache."""
    if chosen := os.environ.get("GLASSBOX_VERDICTS"):
        return Path(chosen)
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    else:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "glassbox" / "verdicts"


def file_name(machine: Machine) -> str:
    """Return the name of the machine's file: "NVIDIA_H200-9.0-triton-3.6.0.json"."""
    text = f"{machine.gpu}-{machine.capability}-triton-{machine.triton}"
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_") + ".json"


def read(path: Path, machine: Machine) -> Verdict | None:
    """Read a verdict for `machine`.

    None if there is no file and, with one logged line, if it is damaged or for something else: it
    is then as if the kernels had not been checked.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
        found = Machine(**content["machine"])
        results = tuple(Result(**row) for row in content["results"])
        for r in results:
            if not (isinstance(r.place, str) and isinstance(r.note, str)):
                raise ValueError("a result has no place or note")
            if not isinstance(r.config, dict):
                raise ValueError("a configuration is no table")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("The verdict %s can't be used and is passed over: %r", path, error)
        return None
    for name, value in machine._asdict().items():
        if getattr(found, name) != value:
            what = "older kernels" if name == "code" else f"{name} {getattr(found, name)}"
            log.warning("The verdict %s is for %s and is passed over.", path, what)
            return None
    return Verdict(found, results, content.get("recorded") or {})


@lru_cache
def load(machine: Machine) -> Verdict | None:
    """Return the verdict for `machine`, cached: this machine's results, then the shipped ones.

    A place that this machine's file has is taken from there alone.
    """
    found = [
        v
        for folder in (user_folder(), SHIPPED)
        if (v := read(folder / file_name(machine), machine)) is not None
    ]
    if not found:
        return None
    results = list(found[0].results)
    for other in found[1:]:
        results += [r for r in other.results if r.place not in found[0].places]
    return Verdict(machine, tuple(results), found[0].recorded)


def forget() -> None:
    """Clear the caches, so that the next call reads the files again."""
    load.cache_clear()
    _right.cache_clear()


def write(verdict: Verdict, folder: Path) -> Path:
    """Write a verdict into `folder`; places that it does not have keep their earlier results.

    Returns the file's path. Raises OSError if the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(verdict.machine)
    earlier = read(path, verdict.machine) if path.exists() else None
    kept = [r for r in earlier.results if r.place not in verdict.places] if earlier else []
    content = {
        "format": FORMAT,
        "machine": verdict.machine._asdict(),
        "recorded": verdict.recorded,
        "results": [r.__dict__ for r in (*kept, *verdict.results)],
    }
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    forget()
    return path


def verdict_of(device: torch.device) -> Verdict | None:
    """Return the verdict for `device`, None if there is none or it is no CUDA or ROCm device."""
    return load(machine_of(device)) if device.type == "cuda" and not INTERPRETED else None


def problem(device: torch.device, places: Iterable[str]) -> str | None:
    """Return in one sentence why the kernels of `places` must not be trusted on `device`, or None.

    They are trusted if each place has a configuration that was right; a * in a place stands for
    any text, and one matching place is enough. `is_unchecked` tells whether the sentence is about
    a place that was never checked. Devices that are no GPU need no verdict.
    """
    if device.type != "cuda" or INTERPRETED:
        return None
    for place in places:
        right = _right_configurations(device, place)
        if right is None:
            return f"{UNCHECKED} ({place}): `{_command_for(place)}` does it."
        if not right:
            return f"{place} failed `python -m kernels.check` on this GPU."
    return None


def _command_for(place: str) -> str:
    """Return the command that checks a place; the quick check is enough to draw."""
    backward = any(f"/{kind}/" in place for kind in ("dkv", "dq", "backward"))
    dtype = place.rpartition("/")[2]
    out = "python -m kernels.check" + ("" if backward else " --quick")
    return out if dtype in ("float16", "*") else f"{out} --dtype {dtype}"


UNCHECKED = "our kernels were not checked on this GPU yet"


def is_unchecked(reason: str | None) -> bool:
    """Return whether a sentence of `problem` says that a check is missing."""
    return bool(reason) and UNCHECKED in str(reason)


@lru_cache
def _right(index: int, place: str) -> tuple[frozenset, ...] | None:
    """Return the right configurations of a place on CUDA device `index`, None if unchecked; cached.

    place: may hold * for any text; the configurations of all matching places.
    """
    verdict = verdict_of(torch.device("cuda", index))
    names = sorted(fnmatch.filter(verdict.places, place)) if verdict else []
    if verdict is None or not names:
        return None
    return tuple(
        frozenset(c.items()) for name in names for c in verdict.configurations(name, right=True)
    )


def _right_configurations(device: torch.device, place: str) -> tuple[frozenset, ...] | None:
    """Return `_right` for a CUDA device; None, not kept, where no GPU can be asked for its name."""
    try:
        return _right(device_index(device), place)
    except (RuntimeError, AssertionError):  # on ZeroGPU a GPU comes with the request
        return None


_forced: dict[str, Config] = {}


@contextmanager
def force(configurations: dict[str, Config]) -> Iterator[None]:
    """Make `choose` return these configurations, by place; for checks and tests in one thread."""
    earlier = dict(_forced)
    _forced.update(configurations)
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(earlier)


def choose(
    device: torch.device, place: str, candidates: Sequence[Config | Callable[[], Config | None]]
) -> Config:
    """Return the first configuration of `candidates` that the verdict for `device` calls right.

    A candidate may be a function, called only if the ones before it are not taken; it may return
    None. Without a verdict for `place`, return the first candidate. Raises NoRightConfiguration if
    the verdict calls none of them right.
    """
    if place in _forced:
        return _forced[place]
    right = _right_configurations(device, place) if device.type == "cuda" else None
    for candidate in candidates:
        config = candidate() if callable(candidate) else candidate
        if config is not None and (right is None or frozenset(config.items()) in right):
            return config
    raise NoRightConfiguration(
        f"No configuration of {place} was right on this GPU: `python -m kernels.check` shows which "
        "failed."
    )
