"""`python -m kernels.bench [OP ...] [--device cuda] [--json FILE] [--plot DIR] [--tune]`.

OP is the name of a kernel in `kernels.registry`, all kernels if none is given. The kernel's row in
the registry names the module (`bench`) that times it and the implementations it is compared with.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..registry import KERNELS

if TYPE_CHECKING:
    from .measure import Row  # imports torch, which --help needs not wait for

DTYPES = ("fp16", "bf16", "fp32")
HEAD = ("shape", "provider", "mode", "ms", "timed by", "rate", "of ceiling", "to best peer", "")
WIDTHS = (34, 18, 8, 9, 8, 14, 10, 12, 0)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments of `python -m kernels.bench`."""
    root = argparse.ArgumentParser(
        "python -m kernels.bench",
        description="Times our kernels against their peers at Stable Diffusion's shapes.",
    )
    root.add_argument("ops", nargs="*", metavar="OP", help=f"of {', '.join(KERNELS)}; default: all")
    root.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    root.add_argument("--dtype", choices=DTYPES, help="default: fp16 on a GPU, fp32 on a CPU")
    root.add_argument("--mode", choices=("forward", "backward"), help="default: both")
    root.add_argument("--seconds", type=float, default=0.2, help="of repeats for each time")
    root.add_argument("--json", type=Path, metavar="FILE", help="write every row")
    root.add_argument("--plot", type=Path, metavar="DIR", help="write PNG plots")
    root.add_argument("--tune", action="store_true", help="write this GPU's tuned configurations")
    root.add_argument("--jobs", type=int, metavar="N", help="of --tune: processes that compile")
    return root


def print_group(rows: list[Row]) -> None:
    """Print one table row for each implementation of an op ("ours", "sdpa") at one shape and mode.

    The column "to best peer" is the time of the fastest implementation that is not ours, divided by
    that of the row. "timed by" is "graph" (replays of a CUDA graph), "events" (CUDA events) or
    empty.
    """
    peers = [r.p50 for r in rows if r.p50 and not r.provider.startswith("ours")]
    best = min(peers, default=None)
    for row in rows:
        ratio = f"{best / row.p50:.2f}x" if best and row.p50 else ""
        cells = (
            row.shape,
            row.provider,
            row.mode,
            f"{row.p50:.4f}" if row.p50 else "",
            row.timed or "",
            f"{row.rate:.3g} {row.metric}" if row.rate else "",
            f"{row.share:.0%}" if row.share else "",
            ratio,
            row.note,
        )
        print(" ".join(c.ljust(w) for c, w in zip(cells, WIDTHS, strict=True)).rstrip(), flush=True)


def summary(rows: list[Row]) -> list[str]:
    """Return a sentence for each op and mode: how many times as fast ours is as the best other.

    At a shape this is the time of the fastest implementation that is not ours, divided by our time.
    A sentence has the geometric mean over the shapes and the lowest value.
    """
    out = []
    groups: dict[tuple[str, str], dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        shapes = groups.setdefault((row.kernel, row.mode), {})
        shapes.setdefault((row.shape, row.dtype), []).append(row)
    for (kernel, mode), shapes in groups.items():
        ratios = {}
        for (shape, _), same_shape in shapes.items():
            ours = next((r.p50 for r in same_shape if r.provider == "ours" and r.p50), None)
            peers = [r.p50 for r in same_shape if not r.provider.startswith("ours") and r.p50]
            if ours and peers:
                ratios[shape] = min(peers) / ours
        if ratios:
            mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
            slow = min(ratios, key=lambda shape: ratios[shape])
            out.append(
                f"{kernel} {mode}: {mean:.2f}x the best peer (geometric mean of {len(ratios)} "
                f"shapes), least {ratios[slow]:.2f}x at {slow}."
            )
    return out


def main(argv: list[str] | None = None) -> int:
    """Run `python -m kernels.bench`, which times kernels or tunes them (`--tune`).

    Returns the exit code: 0, or 2 if the arguments can't be used.
    """
    args = parser().parse_args(argv)
    for op in args.ops:
        if op not in KERNELS:
            print(f"There is no benchmark {op!r}; there is {', '.join(KERNELS)}.", file=sys.stderr)
            return 2
    if not (math.isfinite(args.seconds) and 0 < args.seconds <= 60):
        print(f"--seconds must be above 0 and at most 60, not {args.seconds}.", file=sys.stderr)
        return 2
    if args.jobs is not None and args.jobs < 1:
        print(f"--jobs must be 1 or more, not {args.jobs}.", file=sys.stderr)
        return 2

    import importlib
    import logging

    import torch

    logging.getLogger("xformers").setLevel(
        logging.ERROR
    )  # the table's rows say what xformers can't do

    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        on_gpu = torch.device(device).type == "cuda"
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        print(f"The device {device} can't be used here: {first}", file=sys.stderr)
        return 2
    if torch.device(device).type not in ("cpu", "cuda"):
        print(f"This measures on cpu and cuda, not on {device}.", file=sys.stderr)
        return 2
    try:
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.open("a").close()
        if args.plot:
            args.plot.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"Cannot write to {error.filename}: {error.strerror}.", file=sys.stderr)
        return 2
    names = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    dtype = names[args.dtype or ("fp16" if on_gpu else "fp32")]
    if args.tune:
        if not on_gpu:
            print("--tune needs a GPU: an interpreted kernel has no time.", file=sys.stderr)
            return 2
        from .tune import tune

        return tune(args.ops or list(KERNELS), device, dtype, args.seconds, args.jobs, args.mode)
    from .measure import ceilings, describe_environment, environment, select_device

    select_device(device)
    print(describe_environment(environment(device)))
    best = ceilings(device, dtype)
    print("Ceilings: " + ", ".join(f"{v:.4g} {k}" for k, v in best.items()))
    if not on_gpu:
        print("No GPU: our kernels have no time here; this measures what a CPU can run.")
    print(" ".join(c.ljust(w) for c, w in zip(HEAD, WIDTHS, strict=True)).rstrip())
    rows: list[Row] = []
    for op in args.ops or KERNELS:
        bench = importlib.import_module(KERNELS[op].bench)
        modes = [m for m in KERNELS[op].modes if args.mode in (None, m)]
        if not modes:
            continue
        group: list[Row] = []
        for row in bench.rows(device, dtype, modes, args.seconds):
            if group and (row.shape, row.mode) != (group[0].shape, group[0].mode):
                print_group(group)
                group = []
            group.append(row)
            rows.append(row)
        print_group(group)
    lines = summary(rows)
    print("\n".join(lines))
    if args.json:
        text = ",\n".join(json.dumps(r.as_dict()) for r in rows)
        try:
            args.json.write_text(f"[\n{text}\n]\n", encoding="utf-8")
        except OSError as error:
            print(f"Cannot write {args.json}: {error.strerror}.", file=sys.stderr)
            return 2
    if args.plot:
        from .plot import plots

        for path in plots([r.as_dict() for r in rows], args.plot):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
