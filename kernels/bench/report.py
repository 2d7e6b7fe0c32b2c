"""`python -m kernels.bench.report`: write the measured figures into README.md and docs/kernels.md.

The figures come from kernels/bench/results alone: rows of `python -m kernels.bench --json`
(NAME.json), times of whole calls of a UNet (end_to_end/NAME.json), and the time that each kernel
took in one of them (profiles/NAME.json). Text stands between `<!-- measured: NAME -->` and
`<!-- end -->`; NAME is a key of BLOCKS.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..registry import KERNELS
from . import results

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/kernels.md")
MARKED = re.compile(r"(<!-- measured: (\w+) -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)
TIMED = {"graph": "by replays of a CUDA graph", "events": "by CUDA events around each call"}
KINDS = (  # of the kernels in a profile: what a name has, and what it computes
    ("attention", r"^forward_kernel|sdpa"),
    ("GroupNorm", r"^(leaves|partials|merge|apply|whole|fused_fwd)_kernel"),
    ("LayerNorm", r"layer_norm"),
    ("convolutions", r"xmma|cask|nhwcAddPadding"),
    ("matrix products", r"nvjet|gemm|splitK"),
    ("elementwise operations and copies", r""),
)


class Ratio(NamedTuple):
    """Our time against that of the fastest other implementation at one shape.

    shape         title of the shape
    ours, other   the two measurements, as dicts (Row.as_dict)
    times         how many times as fast ours is: the other's time divided by ours
    """

    shape: str
    ours: dict[str, Any]
    other: dict[str, Any]
    times: float


def ratios(
    rows: Iterable[dict[str, Any]],
    kernel: str,
    mode: str,
    others: Callable[[str], bool] = lambda name: not name.startswith("ours"),
) -> list[Ratio]:
    """Return how our kernel compares with the fastest other implementation at each shape.

    rows: measurements of one device, as dicts (Row.as_dict). kernel, mode: which of them to use,
    such as "attention" and "forward". others: whether an implementation, by its name, is one to
    compare with; default: all but ours. Shapes at which ours or all others have no time are left
    out.
    """
    shapes: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if (row["kernel"], row["mode"]) == (kernel, mode) and row["p50"]:
            shapes.setdefault(row["shape"], []).append(row)
    out = []
    for shape, here in shapes.items():
        ours = next((row for row in here if row["provider"] == "ours"), None)
        peers = [row for row in here if others(row["provider"])]
        if ours and peers:
            other = min(peers, key=lambda row: row["p50"])
            out.append(Ratio(shape, ours, other, other["p50"] / ours["p50"]))
    return out


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive numbers."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def _machines() -> dict[str, list[dict[str, Any]]]:
    """Return the committed measurements of each GPU, by the name of their file without ".json"."""
    return {name: rows for name, rows in results.load_results().items() if rows[0].get("gpu")}


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rows = ["| " + " | ".join(cells) + " |" for cells in (head, *lines)]
    return "\n".join([rows[0], "|---" * len(head) + "|", *rows[1:]])


def _where(row: dict[str, Any]) -> str:
    """Return GPU, driver, versions, dtype and kind of timing of a measurement, for a sentence.

    row: the measurement as a dict (Row.as_dict).
    """
    versions = ", ".join(f"{k} {row['versions'][k]}" for k in ("torch", "triton"))
    how = TIMED[row.get("timed") or "events"]
    driver = f" (driver {row['driver']})" if row["driver"] else ""
    return f"{row['gpu']}{driver}, {versions}, {row['dtype']}, timed {how}"


def summary() -> str:
    """Return the README's Markdown tables of kernel speed, one for each GPU that was measured.

    The rows compare our attention with the fastest other one and our GroupNorm + SiLU with
    torch.compile; where it was measured, there is also a row on whole UNet calls of SD 1.5.
    """
    out = []
    for name, rows in _machines().items():
        compiled = ratios(rows, "group_norm", "forward", lambda p: p == "torch.compile")
        lines = [
            ["Attention", _compared(ratios(rows, "attention", "forward"), "the fastest other")],
            ["GroupNorm + SiLU", _compared(compiled, "torch.compile")],
        ]
        if calls := results.load_further("end_to_end", name):
            lines.append(["SD 1.5's UNet, 512x512, batch 2", _unet_calls(calls["rows"])])
        versions = rows[0]["versions"]
        out.append(
            f"Kernels on an {rows[0]['gpu']}, forward, fp16, torch {versions['torch']}, triton "
            f"{versions['triton']} ([every shape](docs/kernels.md#measured)):\n\n"
            + _table(["", ""], lines)
        )
    return "\n\n".join(out)


def _unet_calls(rows: list[dict[str, Any]]) -> str:
    """Return in one clause how long a call of SD 1.5's UNet takes, channels last, for the README.

    rows: measured calls, as the files in kernels/bench/results/end_to_end have them.
    """
    ms = {
        (row["attention"], row["run"]): row["ms"]
        for row in rows
        if (row["model"], row["layout"]) == ("SD 1.5", "NHWC")
        if (row["attention"], row["group_norm"]) in (("ours", "ours"), ("sdpa", "torch"))
    }
    return (
        f"{ms['ours', 'CUDA graph']:.1f} ms in a CUDA graph, diffusers "
        f"{ms['sdpa', 'CUDA graph']:.1f}, compiled "
        f"{ms['sdpa', 'torch.compile in a CUDA graph']:.1f}; without graph "
        f"{ms['ours', 'eager']:.0f}, diffusers {ms['sdpa', 'eager']:.0f}"
    )


def _compared(found: list[Ratio], with_what: str) -> str:
    """Return in one clause how many times as fast our kernel is, mean and range over the shapes.

    with_what: name of what it is compared with.
    """
    times = [ratio.times for ratio in found]
    return (
        f"{geometric_mean(times):.2f}x as fast as {with_what} (mean of {len(times)} shapes; "
        f"{min(times):.2f} to {max(times):.2f})"
    )


def shapes() -> str:
    """Return docs/kernels.md's Markdown tables with our kernel and the fastest other at each shape.

    There is one for each GPU, kernel and mode.
    """
    out = []
    for rows in _machines().values():
        first = rows[0]
        best = ", ".join(f"{value:g} {unit}" for unit, value in first["ceilings"].items())
        out.append(f"{_where(first)}. The most that this GPU reached itself: {best}.")
        for kernel in KERNELS.values():
            for mode in kernel.modes:
                timed = [
                    row
                    for row in rows
                    if (row["kernel"], row["mode"], row["provider"]) == (kernel.name, mode, "ours")
                    and row["p50"]
                ]
                if timed:
                    out.append(_shape_table(kernel.label, mode, timed, rows))
    return "\n\n".join(out)


def _shape_table(
    label: str, mode: str, timed: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> str:
    kernel = timed[0]["kernel"]
    found = {ratio.shape: ratio for ratio in ratios(rows, kernel, mode)}
    compiled = ratios(rows, kernel, mode, lambda name: name == "torch.compile")
    lines = []
    for row in timed:
        cells = [row["shape"], _ms(row["p50"]), f"{row['rate']:.4g}", f"{row['share']:.0%}"]
        if ratio := found.get(row["shape"]):
            cells += [ratio.other["provider"], _ms(ratio.other["p50"]), f"{ratio.times:.2f}"]
        else:
            cells += ["not timed", "", ""]
        lines.append(cells)
    head = ["shape", "ours, ms", timed[0]["metric"], "of the most", "fastest other", "ms", "times"]
    title = f"{label[0].upper()}{label[1:]}, {mode}: "
    title += _compared(list(found.values()), "the fastest other that was timed there")
    if compiled:
        title += "; " + _compared(compiled, "torch.compile")
    return f"{title}.\n\n{_table(head, lines)}"


def _ms(value: float) -> str:
    return f"{value:.4g}"


def unet() -> str:
    """Return docs/kernels.md's Markdown tables of whole UNet calls.

    They say how long each combination of backends took, and which kinds of kernels took the time.
    """
    out = []
    for name in _machines():
        if measured := results.load_further("end_to_end", name):
            out.append(f"{measured['surroundings']['gpu']}:\n\n{_calls_table(measured['rows'])}")
        if profile := results.load_further("profiles", name):
            out.append(
                "Milliseconds of one call in a CUDA graph, NHWC, by what the GPU computed:\n\n"
                + _profile_table(profile["calls"])
            )
    return "\n\n".join(out)


def _calls_table(rows: list[dict[str, Any]]) -> str:
    head = ["one call of the UNet", "run", "attention", "GroupNorm", "ms", "calls a second"]
    lines = [
        [
            f"{row['model']} {row['size']}x{row['size']}, batch {row['batch']}",
            f"{row['run']}, {row['layout']}",
            row["attention"],
            row["group_norm"],
            f"{row['ms']:.1f}",
            f"{1000 / row['ms']:.1f}",
            row["note"].removeprefix("first call "),
        ]
        for row in rows
        if row["ms"]
    ]
    return _table([*head, "first call"], lines)


def _profile_table(calls: dict[str, list[dict[str, Any]]]) -> str:
    profile = {title: _kinds(kernels) for title, kernels in calls.items()}
    lines = [
        [kind, *(f"{times[kind] / 1000:.2f}" for times in profile.values())] for kind, _ in KINDS
    ]
    lines.append(["all", *(f"{sum(times.values()) / 1000:.2f}" for times in profile.values())])
    return _table(["", *profile], lines)


def _kinds(kernels: list[dict[str, Any]]) -> dict[str, float]:
    """Add up the times of the GPU kernels of one UNet call, for each kind of kernel.

    Returns a dict from the kinds of KINDS, such as "attention", to microseconds. kernels: the
    kernels that a profiler recorded, as dicts with the kernel's name "kernel" and its time "us".
    """
    times = dict.fromkeys((kind for kind, _ in KINDS), 0.0)
    for kernel in kernels:
        kind = next(kind for kind, pattern in KINDS if re.search(pattern, kernel["kernel"]))
        times[kind] += kernel["us"]
    return times


def cpu() -> str:
    """Return English text for docs/kernels.md: how fast PyTorch's fused attention is on CPUs.

    It has a sentence for each CPU of which this repository has benchmark results. The sentence
    compares the time with that of attention by plain matrix products.
    """
    out = []
    for rows in results.load_results().values():
        if rows[0].get("gpu"):
            continue
        times: dict[str, dict[str, float]] = {}
        for row in rows:
            if (row["kernel"], row["mode"]) == ("attention", "forward") and row["p50"]:
                times.setdefault(row["shape"], {})[row["provider"]] = row["p50"]
        both = [
            t["sdpa"] / t["torch eager"] for t in times.values() if {"sdpa", "torch eager"} <= {*t}
        ]
        out.append(
            f"On a CPU ({rows[0]['cpu']}, {rows[0]['threads']} threads) PyTorch's fused attention "
            f"takes {geometric_mean(both):.2f} times as long as plain matrix products (geometric "
            f"mean of {len(both)} shapes), so `auto` takes it."
        )
    return "\n".join(out)


BLOCKS: dict[str, Callable[[], str]] = {
    "summary": summary,
    "shapes": shapes,
    "unet": unet,
    "cpu": cpu,
}


def fill(text: str) -> str:
    """Return a document's text with the measured figures put between its marks.

    Marks are `<!-- measured: NAME -->` and `<!-- end -->`; NAME is a key of BLOCKS, such as
    "summary".
    """
    return MARKED.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", text)


def main() -> int:
    """Write the kernels' stored benchmark results into README.md and docs/kernels.md as tables.

    Returns the process's exit code, 0.
    """
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
