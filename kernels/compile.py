"""Compile every kernel for every GPU target, without a GPU: `python -m kernels.compile`.

Each op of `kernels.registry` is called on tensors without memory and its launches are recorded.
Each recorded launch is compiled for each target, with the constants and the divisibility of strides
that a real launch has. A table lists registers, spilled bytes, shared memory and whether the code
has instructions of the matrix unit.

The exit code is 1 if a forward kernel in fp16 or bf16 for sm_80 or newer, at its default
configuration, spills registers, needs more shared memory than the target has, or (attention) has no
matrix instructions. Faults of fp32, sm_75, gfx942 and backward kernels are only listed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch

from .recorder import Launch, cases, recording, specialise
from .registry import KERNELS

# GPU target: (bytes of shared memory that a block may use, pattern of its matrix instructions).
TARGETS = {
    "sm_75": (64 << 10, r"\bHMMA"),
    "sm_80": (163 << 10, r"\bHMMA"),
    "sm_86": (99 << 10, r"\bHMMA"),
    "sm_89": (99 << 10, r"\bHMMA"),
    "sm_90": (227 << 10, r"\bHGMMA|\bHMMA"),  # HGMMA takes blocks of 64 rows, HMMA smaller ones
    "sm_100": (227 << 10, r"\bUTC\w*MMA|\bHMMA"),
    "sm_120": (99 << 10, r"\bHMMA"),
    "gfx942": (64 << 10, r"v_mfma"),
}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass
class Row:
    """What the compiler made of one recorded launch for one target.

      op          the kernel's name in the registry
      kernel      name of the Triton kernel that was launched
      shape       short name of the shape
      dtype       "fp16", "bf16" or "fp32"
      target      a key of TARGETS, such as "sm_90"
      mode        "forward" or "backward": of the op that launched it
      registers   registers of a thread
      spilled     bytes of a thread that did not fit in registers
      shared      bytes of shared memory of a block
      matrix      the matrix unit's instructions and their number: "12 HGMMA"; "" if there are none
      error       why it does not compile; None if it does

    Numbers are None if it does not compile.
    """

    op: str
    kernel: str
    shape: str
    dtype: str
    target: str
    mode: str = "forward"
    registers: int | None = None
    spilled: int | None = None
    shared: int | None = None
    matrix: str | None = None  # "12 HGMMA"
    error: str | None = None

    @property
    def gated(self) -> bool:
        """Whether faults of this row make the command fail; those of other rows are only listed."""
        return (
            self.mode == "forward"
            and self.dtype != "fp32"
            and self.target not in ("sm_75", "gfx942")
        )

    @property
    def faults(self) -> list[str]:
        """Phrases that say what is wrong, such as "spills 8 bytes"; empty if nothing is."""
        if self.error:
            return [self.error]
        out = []
        if self.spilled:
            out.append(f"spills {self.spilled} bytes")
        if self.shared is not None and self.shared > TARGETS[self.target][0]:
            out.append(f"takes {self.shared} bytes of shared memory")
        multiplies = self.kernel in KERNELS[self.op].matmul_kernels
        if (
            multiplies and not self.matrix and self.dtype != "fp32"
        ):  # no matrix unit multiplies IEEE fp32
            out.append("has no matrix instruction")
        return out


def build(launch: Launch, target: str) -> Any:
    """Compile a recorded launch for `target`, a key of TARGETS; return triton's CompiledKernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = specialise(launch, target)
    source = ASTSource(launch.kernel, signature, constants, attributes)
    if target.startswith("sm_"):
        gpu = GPUTarget("cuda", int(target[3:]), 32)
    else:
        gpu = GPUTarget("hip", target, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return triton.compile(source, target=gpu, options=launch.options)


def _tool(name: str) -> str:
    """Return the path of a CUDA tool that the triton package ships, such as "cuobjdump"."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _count(pattern: str, code: str) -> str:
    """Return the instructions in `code` that match `pattern`, counted: "12 HGMMA, 4 HMMA"."""
    counts = Counter(re.findall(pattern, code))
    return ", ".join(f"{n} {name}" for name, n in counts.most_common())


def _number(pattern: str, text: str) -> int:
    """Return the integer that the group in `pattern` captures in `text`.

    Raises RuntimeError if nothing matches.
    """
    match = re.search(pattern, text)
    if not match:
        raise RuntimeError(f"the compiler's output has no {pattern}")
    return int(match.group(1))


def inspect(compiled: Any, row: Row) -> None:
    """Set the row's registers, spilled bytes, shared memory and matrix instructions.

    compiled: triton's CompiledKernel, from `build`.
    """
    row.shared = compiled.metadata.shared
    pattern = TARGETS[row.target][1]
    if row.target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        row.matrix = _count(pattern, text)
        row.registers = _number(r"\.vgpr_count:\s*(\d+)", text)
        row.spilled = 4 * _number(r"\.vgpr_spill_count:\s*(\d+)", text)
        return
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [_tool("cuobjdump"), "--dump-resource-usage", file.name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        code = subprocess.run(
            [_tool("nvdisasm"), "-c", file.name], capture_output=True, text=True, check=True
        ).stdout
    row.registers = _number(r"REG:(\d+)", usage)
    row.spilled = sum(int(n) for n in re.findall(r"(?:LOCAL|STACK):(\d+)", usage))
    row.matrix = _count(pattern, code)


def rows(target: str, dtype: str, only: str = "") -> list[Row]:
    """Compile all cases of `kernels.recorder` for one target; return a Row for each launch.

    dtype: a key of DTYPES. only: compile only the cases whose op and shape, "attention SD 1.5 64x77
    d160", contain this text. Launches that the compiler cannot tell apart are compiled once. A
    launch that does not compile gives a Row with an `error`.
    """
    out: list[Row] = []
    seen: set[tuple[str, str, str]] = set()
    for case in cases():
        if only not in f"{case.op} {case.title}":
            continue
        with recording(target) as log:
            case.run(DTYPES[dtype])
        for launch in log:
            same = launch.kernel.__name__, str(specialise(launch, target)), str(launch.options)
            if same in seen:
                continue
            seen.add(same)
            row = Row(case.op, launch.kernel.__name__, case.title, dtype, target, case.mode)
            try:
                inspect(build(launch, target), row)
            except Exception as error:  # compilers raise exceptions of many types
                row.error = f"does not compile: {str(error).strip().splitlines()[0][:100]}"
            out.append(row)
    return out


HEAD = (
    "| kernel | shape | type | target | registers | spilled | shared | matrix | |",
    "|---|---|---|---|---|---|---|---|---|",
)


def line(row: Row) -> str:
    """Return the row as a line of the Markdown table that starts with HEAD."""
    faults = row.faults
    mark = "ok" if not faults else ("**fails**: " if row.gated else "") + "; ".join(faults)
    figures = (row.registers, row.spilled, row.shared, row.matrix)
    shown = " | ".join("" if f is None else str(f) for f in figures)
    return f"| {row.kernel} | {row.shape} | {row.dtype} | {row.target} | {shown} | {mark} |"


def failures(done: list[Row]) -> int:
    """Return how many of the compiled rows have faults that make the command fail."""
    return sum(row.gated and bool(row.faults) for row in done)


def verdict(done: list[Row]) -> str:
    """Return the last sentence of the output: how many kernels were compiled and had faults."""
    return (
        f"{len(done)} kernels compiled, {failures(done)} of those that must be right are not, "
        f"{sum(bool(r.faults) for r in done) - failures(done)} others are remarked on."
    )


def report(done: list[Row]) -> str:
    """Return the text of docs/compiled.md: a summary by target and dtype, then tables of rows.

    The first table has the rows with faults, the second all rows.
    """
    import triton

    out = ["# Compiled kernels", "", "`python -m kernels.compile --report FILE`, no GPU needed: "]
    out[-1] += f"triton {triton.__version__}, torch {torch.__version__}. {verdict(done)}"
    out += [
        "",
        "Forward kernels in fp16 and bf16 for sm_80 and newer must neither spill nor overrun",
    ]
    out += ["shared memory nor lack matrix instructions; the rest is reported.", ""]
    out += ["| target | type | kernels | clean | must be right | of them wrong | most registers |"]
    out += ["|---|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in done:
        groups.setdefault((row.target, row.dtype), []).append(row)
    for (target, dtype), rows in groups.items():
        clean, gated = sum(not r.faults for r in rows), sum(r.gated for r in rows)
        registers = max(r.registers or 0 for r in rows)
        cells = target, dtype, len(rows), clean, gated, failures(rows), registers
        out.append("| " + " | ".join(map(str, cells)) + " |")
    out += ["", "## Remarked on", "", *HEAD, *(line(r) for r in done if r.faults)]
    return "\n".join([*out, "", "## All", "", *HEAD, *map(line, done), ""])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if no kernel fails, 1 if one does, 2 for bad arguments."""
    from .launch import INTERPRETED

    parser = argparse.ArgumentParser(
        "python -m kernels.compile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: all")
    parser.add_argument("--only", help="ops and shapes that hold this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at work")
    parser.add_argument("--report", type=Path, help="write the table to this file too")
    args = parser.parse_args(argv)
    if INTERPRETED:
        print("TRITON_INTERPRET is set: unset it to compile.", file=sys.stderr)
        return 2
    tasks = [
        (target, dtype, args.only or "")
        for target in args.target or TARGETS
        for dtype in args.dtype or DTYPES
        if (target, dtype) != ("sm_75", "bf16")  # sm_75 has no matrix instructions for bf16
    ]
    done: list[Row] = []
    print("\n".join(HEAD))
    with ProcessPoolExecutor(
        max(1, min(args.jobs or 1, len(tasks))), multiprocessing.get_context("spawn")
    ) as pool:
        for part in pool.map(rows, *zip(*tasks, strict=True)):
            for row in part:
                print(line(row), flush=True)
            done += part
    print(verdict(done))
    if args.report:
        args.report.write_text(report(done), encoding="utf-8")
    return 1 if failures(done) else 0


if __name__ == "__main__":
    sys.exit(main())
