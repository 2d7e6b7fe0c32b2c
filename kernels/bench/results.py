"""Read the committed measurements, kernels/bench/results/*.json: one file for each device.

A file is a list of rows, as `kernels.bench.measure.Row.as_dict` returns them.
"""

from __future__ import annotations

import json
import logging
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).with_name("results")
log = logging.getLogger(__name__)


@lru_cache
def load_results() -> dict[str, list[dict[str, Any]]]:
    """Return the measurements in kernels/bench/results by file name, without ".json"; cached.

    Each value is a list of measurements of one device, as dicts
    (kernels.bench.measure.Row.as_dict). A file that can't be read is left out, with a logged
    warning.
    """
    out = {}
    for path in sorted(FOLDER.glob("*.json")):
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            if not all(isinstance(r, dict) and "kernel" in r for r in rows):
                raise ValueError("it holds no rows of measurements")
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s can't be used and is passed over: %s", path, error)
            continue
        out[path.stem] = rows
    return out


def rows_for_gpu(name: str, capability: tuple[int, int] | None) -> list[dict[str, Any]] | None:
    """Return the measurements (Row.as_dict) made on a GPU like this one, or None if there are none.

    Those made on the GPU `name` are preferred to those on one of the same compute capability.
    capability: (major, minor) as CUDA counts; None for an AMD GPU, to which only measurements of
    the same name apply.
    """
    near = None
    for rows in load_results().values():
        if not rows or not rows[0].get("gpu"):
            continue
        if rows[0]["gpu"] == name:
            return rows
        if capability and tuple(rows[0].get("capability") or ()) == tuple(capability):
            near = rows
    return near


@lru_cache
def load_further(folder: str, name: str) -> dict[str, Any] | None:
    """Return the content of kernels/bench/results/FOLDER/NAME.json; None without one; cached.

    folder: "end_to_end" (times of whole UNet calls) or "profiles" (times of the single kernels in
    them). name: of a device's file of measurements, without ".json".
    """
    path = FOLDER / folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def is_slower_eagerly(rows: list[dict[str, Any]]) -> bool:
    """Return whether a UNet took longer with our kernels than with PyTorch's, launched one by one.

    Launched so ("eager"), a call of our kernels costs the host time that a CUDA graph does not. The
    times are those of whole UNet calls (end_to_end) on the device of `rows`, measurements as
    `rows_for_gpu` returns them. False if none were measured.
    """
    name = next((name for name, other in load_results().items() if other is rows), "")
    ours: dict[tuple, list[float]] = {}
    theirs: dict[tuple, list[float]] = {}
    for row in (load_further("end_to_end", name) or {"rows": []})["rows"]:
        if row["run"] == "eager" and row["ms"]:
            side = ours if "ours" in (row["attention"], row["group_norm"]) else theirs
            side.setdefault((row["model"], row["size"], row["layout"]), []).append(row["ms"])
    return any(min(times) > min(theirs.get(key, times)) for key, times in ours.items())


def slowdown(rows: list[dict[str, Any]], kernel: str, mode: str) -> dict[str, float]:
    """Return a dict from each implementation's name to its time divided by the fastest one's.

    rows: measurements of one device, as dicts (Row.as_dict). kernel, mode: which of them to use,
    such as "attention" and "forward". The value, 1.0 or more, is the geometric mean over the shapes
    for which the implementation ("ours", "sdpa") has a time. One that was wrong at any shape is
    left out.
    """
    shapes: dict[tuple, dict[str, float]] = {}
    wrong = wrong_providers(rows, kernel, mode)
    rows = [r for r in rows if (r["kernel"], r["mode"]) == (kernel, mode)]
    for r in rows:
        if r["p50"] and r["provider"] not in wrong:
            shapes.setdefault((r["shape"], r["dtype"]), {})[r["provider"]] = r["p50"]
    logs: dict[str, list[float]] = {}
    for times in shapes.values():
        best = min(times.values())
        for provider, time in times.items():
            logs.setdefault(provider, []).append(math.log(time / best))
    return {p: math.exp(sum(x) / len(x)) for p, x in logs.items()}


def wrong_providers(rows: list[dict[str, Any]], kernel: str, mode: str) -> set[str]:
    """Return the names of the implementations that gave a wrong answer at any shape.

    rows: measurements of one device, as dicts (Row.as_dict). kernel, mode: which of them to use,
    such as "attention" and "forward".
    """
    return {
        r["provider"]
        for r in rows
        if (r["kernel"], r["mode"]) == (kernel, mode) and r["note"].startswith("wrong answer")
    }


class AttentionSizes(NamedTuple):
    """The sizes of a measured attention shape, read from its title by `attention_sizes`."""

    queries: int
    keys: int
    heads: int
    head_size: int


def attention_sizes(title: str) -> AttentionSizes | None:
    """Return the sizes in a title such as "SD 1.5 512 B2 4096x77 H8 D40"; None for any other text.

    They are the numbers of queries and keys, of heads, and the head size: 4096, 77, 8 and 40 here.
    """
    found = re.search(r"\b(\d+)x(\d+) H(\d+) D(\d+)$", title)
    return AttentionSizes(*map(int, found.groups())) if found else None
