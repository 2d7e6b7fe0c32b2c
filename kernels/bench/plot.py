"""Plot measured rows: a bar chart of rates at each shape, and the roofline of the device.

Rows are dicts, as `kernels.bench.measure.Row.as_dict` returns them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..registry import KERNELS
from .measure import describe_environment, device_name

matplotlib.use("Agg", force=False)
OURS = "#0b7a5e"
PEERS = ("#5c77bc", "#cc8a3e", "#96629e", "#78808a", "#bc5454", "#5c9eb2", "#a8a23c")
MARKERS = {"o": "circles", "^": "triangles", "s": "squares", "D": "diamonds", "v": "tips"}


def colours(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return a dict from each implementation's name to its colour in plots; ours are green.

    rows: measurements, of which the field "provider" ("ours", "sdpa") counts.
    """
    names = list(dict.fromkeys(r["provider"] for r in rows))
    peers = [n for n in names if not n.startswith("ours")]
    return {n: OURS if n.startswith("ours") else PEERS[peers.index(n) % len(PEERS)] for n in names}


def plots(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Plot measurements: write PNG files to `folder`, which is created, and return their paths.

    There is a bar chart for each kernel and mode, and a roofline for each mode. rows: measurements
    as dicts, as the benchmark's JSON files have them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["rate"]:
            groups.setdefault(f"{row['kernel']}-{row['mode']}", []).append(row)
            groups.setdefault(f"roofline-{row['mode']}", []).append(row)
    out = []
    for name, group in groups.items():
        out.append(folder / f"{name}.png")
        figure = roofline(group) if name.startswith("roofline") else bars(group)
        figure.savefig(out[-1], dpi=120)
    return out


def bars(rows: list[dict[str, Any]]) -> Figure:
    """Return a bar chart with a group of bars for each shape and a bar for each implementation.

    rows: measurements of one kernel and mode, as dicts (Row.as_dict). A bar's length is its rate,
    in TFLOP/s or GB/s as the rows say. A dashed line marks the ceiling measured on the device.
    """
    shapes: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        shapes.setdefault(row["shape"], []).append(row)
    height = 1.6 + 0.19 * len(rows) + 0.14 * len(shapes)
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots()
    colour, y, ticks, seen = colours(rows), 0.0, [], set()
    for shape, group in shapes.items():
        ticks.append((y + (len(group) - 1) / 2, shape))
        for row in group:
            label = None if row["provider"] in seen else row["provider"]
            seen.add(row["provider"])
            drawn = axes.barh(y, row["rate"], 0.85, color=colour[row["provider"]], label=label)
            axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=7)
            y += 1
        y += 0.8
    top = rows[0]["ceilings"][rows[0]["metric"]]
    axes.axvline(top, color="black", linestyle="--", linewidth=1, label="measured ceiling")
    axes.set_yticks([t for t, _ in ticks], [s for _, s in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel(rows[0]["metric"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{rows[0]['kernel']}, {rows[0]['mode']}, {rows[0]['dtype']}\n"
        f"{describe_environment(rows[0])}",
        fontsize=9,
    )
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def roofline(rows: list[dict[str, Any]], ink: str = "black") -> Figure:
    """Return a roofline plot of measurements: TFLOP/s over FLOP per byte, both logarithmic.

    rows: measurements of one mode, of any kernels, as dicts (Row.as_dict). ink: colour of the line
    that shows the device's measured ceilings. Williams, Waterman and Patterson, doi
    10.1145/1498765.1498785.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    colour, seen = colours(rows), set()
    for row in rows:
        key, marker = row["provider"], KERNELS[row["kernel"]].marker
        axes.loglog(
            row["flop"] / row["bytes"], row["flop"] / row["p50"] / 1e9, marker,
            color=colour[key], markersize=5, alpha=0.75, label=None if key in seen else key,
        )  # fmt: skip
        seen.add(key)
    ceilings = rows[0]["ceilings"]
    low, high = (f(r["flop"] / r["bytes"] for r in rows) for f in (min, max))
    knee = 1000 * ceilings["TFLOP/s"] / ceilings["GB/s"]
    x = sorted([low / 2, knee, max(high, knee) * 2])
    axes.plot(
        x, [min(ceilings["TFLOP/s"], v * ceilings["GB/s"] / 1000) for v in x], color=ink, lw=1
    )
    axes.set_xlabel("FLOP a byte")
    axes.set_ylabel("TFLOP/s")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    kinds = ", ".join(f"{MARKERS.get(k.marker, k.marker)} {k.label}" for k in KERNELS.values())
    axes.set_title(f"Roofline, {rows[0]['mode']}: {kinds}\n{device_name(rows[0])}", fontsize=9)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure
