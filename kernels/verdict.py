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
    """A kernel can't be launched: each configuration for it failed `kernels.check` on this GPU."""


class Machine(NamedTuple):
    """A GPU with the software for which the results of `python -m kernels.check` are valid.

    gpu          its name, as torch.cuda.get_device_name returns it
    capability   compute capability, "9.0", or architecture of an AMD GPU, "gfx942"
    triton       version of Triton
    code         hash of the kernels' code, without comments and docstrings
    """

    gpu: str
    capability: str
    triton: str
    code: str


@dataclass(frozen=True)
class Result:
    """What `python -m kernels.check` found of one configuration of a kernel at one shape.

    place    kernel, head size or layout, and dtype: "attention/forward/d40/float16"
    config   the configuration: {"M": 128, "N": 64, "num_warps": 4, "num_stages": 3}
    shape    title of the shape
    error    largest absolute error against fp64; NaN where nothing could be compared
    allowed  the most that `error` may be, or NaN
    note     "ok", "WRONG", "UNEQUAL" (two runs gave other bits), or "CRASHED", "HUNG" or "FAILED"
             followed by the reason
    """

    place: str
    config: Config
    shape: str
    error: float
    allowed: float
    note: str

    @property
    def right(self) -> bool:
        """Whether the kernel was right at this shape, with the same bits in two runs."""
        return self.note == "ok"


@dataclass(frozen=True)
class Verdict:
    """All results of `python -m kernels.check` that are known for one GPU: what may run there.

    machine: the GPU and the versions for which they are valid. recorded: a dict with the driver's
    and torch's versions, the date and the seconds of the check.
    """

    machine: Machine
    results: tuple[Result, ...]
    recorded: dict[str, Any] = field(default_factory=dict)

    def configurations(self, place: str, *, right: bool) -> list[Config]:
        """Return the configurations of one kernel that passed the check, or those that failed it.

        place: kernel, head size or layout, and dtype, such as "attention/forward/d40/float16".
        right: True for the configurations whose results were right at every shape, False for those
        that failed at a shape. A configuration with several such results occurs several times.
        """
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
        """Names of the kernels that have results, such as "attention/forward/d40/float16"."""
        return {r.place for r in self.results}


def machine_of(device: torch.device) -> Machine:
    """Return the Machine for which results of `python -m kernels.check` on `device` are stored.

    It holds the GPU's name, its compute capability or AMD architecture, the version of Triton and
    the hash of the kernels' code. device: of CUDA or ROCm.
    """
    import triton

    from .code_hash import code_hash

    index = device_index(device)
    if torch.version.hip:
        architecture = torch.cuda.get_device_properties(index).gcnArchName.partition(":")[0]
    else:
        architecture = ".".join(map(str, capability(index)))
    return Machine(gpu_name(index), architecture, triton.__version__, code_hash())


def user_folder() -> Path:
    """Return the folder for results of `kernels.check` on this machine's GPUs.

    It is $GLASSBOX_VERDICTS or, if that is not set, glassbox/verdicts in the user's cache folder.
    """
    if chosen := os.environ.get("GLASSBOX_VERDICTS"):
        return Path(chosen)
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    else:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "glassbox" / "verdicts"


def file_name(machine: Machine) -> str:
    """Return the name of the file with a machine's results: "NVIDIA_H200-9.0-triton-3.6.0.json"."""
    text = f"{machine.gpu}-{machine.capability}-triton-{machine.triton}"
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_") + ".json"


def read(path: Path, machine: Machine) -> Verdict | None:
    """Read the results of `python -m kernels.check` for `machine` from the file `path`.

    None if there is no file and, with one logged line, if it is damaged or for another GPU, version
    of Triton or state of the kernels' code: it is then as if the kernels had not been checked.
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
    """Return all results of `python -m kernels.check` that are valid for `machine`, or None.

    They are those in `user_folder` and those that come with this repository. Where both have
    some under the same name, such as "attention/forward/d40/float16", only the user's are returned.
    None means that there are none at all. Cached.
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
    """Forget the results of `kernels.check` that this process has read.

    The next kernel launch reads their files again.
    """
    load.cache_clear()
    _right.cache_clear()


def write(verdict: Verdict, folder: Path) -> Path:
    """Save results of `python -m kernels.check` in the file for their machine, in `folder`.

    Results that the file has already are kept, except those of a kernel, configuration and shape
    that were checked again: a quick check takes back no fault that a whole one found elsewhere.
    Returns the file's path. Raises OSError if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(verdict.machine)
    earlier = read(path, verdict.machine) if path.exists() else None
    new = [(r.place, r.config, r.shape) for r in verdict.results]
    kept = (
        [r for r in earlier.results if (r.place, r.config, r.shape) not in new] if earlier else []
    )
    content = {
        "format": FORMAT,
        "machine": verdict.machine._asdict(),
        "recorded": verdict.recorded,
        "results": [r.__dict__ for r in (*kept, *verdict.results)],
    }
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # it is there still where that failed
    forget()
    return path


def verdict_of(device: torch.device) -> Verdict | None:
    """Return all results of `python -m kernels.check` that are known for `device`.

    None if there are none, if it is no CUDA or ROCm device, and if Triton interprets kernels.
    """
    return load(machine_of(device)) if device.type == "cuda" and not INTERPRETED else None


def problem(device: torch.device, places: Iterable[str]) -> str | None:
    """Return in one sentence why kernels must not be trusted on `device`, or None if they may.

    places: names of the kernels, such as "attention/forward/d40/float16". Each must have a
    configuration that `python -m kernels.check` found right; a * in a name stands for any text, and
    one matching name is enough. `is_unchecked` tells whether the sentence is about a kernel that
    was never checked. None for devices that are no GPU, and if Triton interprets kernels.
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
    """Return the command with which a user can check a kernel: "python -m kernels.check --quick".

    place: what is unchecked, such as "attention/forward/d40/float16". Without --quick for a kernel
    of the backward pass; with --dtype for any dtype but float16.
    """
    backward = any(f"/{kind}/" in place for kind in ("dkv", "dq", "backward"))
    dtype = place.rpartition("/")[2]
    out = "python -m kernels.check" + ("" if backward else " --quick")
    return out if dtype in ("float16", "*") else f"{out} --dtype {dtype}"


UNCHECKED = "our kernels were not checked on this GPU yet"


def is_unchecked(reason: str | None) -> bool:
    """Return whether `reason` says that a kernel was never checked on this GPU, not that it failed.

    reason: the sentence that `problem` returned, or None.
    """
    return bool(reason) and UNCHECKED in str(reason)


@lru_cache
def _right(index: int, place: str) -> tuple[frozenset, ...] | None:
    """Return a kernel's configurations that `kernels.check` found right on CUDA device `index`.

    place: a name such as "attention/forward/d40/float16"; a * stands for any text, then those of
    all matching names are returned. A configuration is a frozenset of its items. Empty if all
    failed, None if the kernel was not checked. Cached.
    """
    verdict = verdict_of(torch.device("cuda", index))
    names = sorted(fnmatch.filter(verdict.places, place)) if verdict else []
    if verdict is None or not names:
        return None
    return tuple(
        frozenset(c.items()) for name in names for c in verdict.configurations(name, right=True)
    )


def _right_configurations(device: torch.device, place: str) -> tuple[frozenset, ...] | None:
    """Return a kernel's configurations that `kernels.check` found right on the GPU `device`.

    place: a name such as "attention/forward/d40/float16". Each configuration is the frozenset of
    the items of its dict. Empty if all failed. None if the kernel was not checked, or if the
    process has no GPU yet, as on ZeroGPU outside a request; this None is not cached.
    """
    try:
        return _right(device_index(device), place)
    except (RuntimeError, AssertionError):  # on ZeroGPU a GPU comes with the request
        return None


_forced: dict[str, Config] = {}


@contextmanager
def force(configurations: dict[str, Config]) -> Iterator[None]:
    """In a `with` block, make kernels run with given configurations; for checks, tuning and tests.

    configurations: from a name such as "attention/forward/d40/float16" to the configuration (block
    sizes, warps, stages). They apply to all threads of the process, so two threads must not be
    inside such blocks at the same time.
    """
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
    """Return the configuration for a launch: the first of `candidates` that a check found right.

    The check is that of `python -m kernels.check` for `device` and the kernel named `place`, such
    as "attention/forward/d40/float16"; if there was none, the first candidate is returned. A
    candidate may be a function, called only if the ones before it are not taken; it may return
    None, which is passed over. Raises NoRightConfiguration if the check found none of them right.
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
