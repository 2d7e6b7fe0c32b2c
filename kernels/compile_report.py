"""What the compiler made of the kernels' launches: rows, which of them fail, and their tables.

docs/compiled.md is written by `report`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .registry import KERNELS

REPORT = "python -m kernels.compile --triton oldest --triton newest --report docs/compiled.md"
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
      triton      the version of Triton that compiled it
      registers   registers of a thread
      spilled     bytes of a thread that did not fit in registers
      shared      bytes of shared memory of a block
      matrix      the matrix unit's instructions and their number: "12 HGMMA"; "" if there are none
      unwritten   instructions that read a register that nothing wrote, on sm_90
      error       why it does not compile; None if it does

    Numbers are None if it does not compile.
    """

    op: str
    kernel: str
    shape: str
    dtype: str
    target: str
    mode: str = "forward"
    triton: str = ""
    registers: int | None = None
    spilled: int | None = None
    shared: int | None = None
    matrix: str | None = None  # "12 HGMMA"
    unwritten: int = 0
    error: str | None = None

    @property
    def gated(self) -> bool:
        """Whether a spill, too much shared memory or no matrix instruction makes it fail."""
        return (
            self.mode == "forward"
            and self.dtype != "fp32"
            and self.target not in ("sm_75", "gfx942")
        )

    @property
    def failed(self) -> bool:
        """Whether this row makes the command fail: its code is missing or wrong, or see `gated`."""
        return bool(self.error) or self.unwritten > 0 or (self.gated and bool(self.faults))

    @property
    def faults(self) -> list[str]:
        """Phrases that say what is wrong, such as "spills 8 bytes"; empty if nothing is."""
        if self.error:
            return [self.error]
        out = []
        if self.unwritten:
            out.append(f"reads unwritten registers in {self.unwritten} instructions")
        if self.spilled:
            out.append(f"spills {self.spilled} bytes")
        if self.shared is not None and self.shared > TARGETS[self.target][0]:
            out.append(f"takes {self.shared} bytes of shared memory")
        # no matrix unit multiplies IEEE fp32
        if self.multiplies and not self.matrix and self.dtype != "fp32":
            out.append("has no matrix instruction")
        return out

    @property
    def multiplies(self) -> bool:
        """Whether the kernel multiplies matrices."""
        return self.kernel in KERNELS[self.op].matmul_kernels


# Headers of the tables.
HEAD = (
    "| kernel | shape | type | target | registers | spilled | shared | matrix | |",
    "|---|---|---|---|---|---|---|---|---|",
)
SUMMARY = (
    "| Triton | target | type | kernels | clean | do not compile | must be right | of them wrong "
    "| most registers |",
    "|---|---|---|---|---|---|---|---|---|",
)


def figures(row: Row) -> str:
    """Return the cells of registers, spilled bytes, shared memory and matrix instructions."""
    cells = (row.registers, row.spilled, row.shared, row.matrix)
    return " | ".join("" if cell is None else str(cell) for cell in cells)


def line(row: Row) -> str:
    """Return the row as a line of the Markdown table that starts with HEAD."""
    faults = "; ".join(row.faults)
    mark = "ok" if not faults else f"**fails**: {faults}" if row.failed else faults
    return f"| {row.kernel} | {row.shape} | {row.dtype} | {row.target} | {figures(row)} | {mark} |"


def summary(rows: list[Row]) -> str:
    """Return the last sentence of the output: how many kernels were compiled and had faults."""
    failed = sum(row.failed for row in rows)
    remarked = sum(bool(row.faults) for row in rows) - failed
    return (
        f"{len(rows)} kernels compiled, {failed} of those that must be right are not, "
        f"{remarked} others are remarked on."
    )


def report(rows: list[Row], code: str) -> str:
    """Return the text of docs/compiled.md for the rows of one or several Tritons.

    It has a summary by Triton, target and dtype, a table of the rows with faults and one of all
    launches. code: `kernels.code_hash.code_hash` of what was compiled.
    """
    versions = list(dict.fromkeys(row.triton for row in rows))
    figures_of_each = "".join(f" {v}: registers | spilled | shared | matrix |" for v in versions)
    out = [
        "# Compiled kernels", "", f"`{REPORT}`, no GPU needed.", "",
        f"Triton {' and '.join(versions)}, torch {torch.__version__}, code hash `{code}`. "
        f"{summary(rows)}", "",
        "Every kernel must compile, and to code that reads no register that nothing wrote. Forward",
        "kernels in fp16 and bf16 for sm_80 and newer must neither spill nor overrun shared memory",
        "nor lack matrix instructions; the rest is reported.", "",
        *SUMMARY, *_summary_lines(rows), "", "## Remarked on", "",
        f"{HEAD[0]} Triton |", f"{HEAD[1]}---|",
        *(f"{line(row)} {row.triton} |" for row in rows if row.faults), "", "## All", "",
        f"| kernel | shape | target | type |{figures_of_each}",
        "|---" * (4 + 4 * len(versions)) + "|",
    ]  # fmt: skip
    return "\n".join([*out, *_launch_lines(rows, versions), ""])


def _summary_lines(rows: list[Row]) -> Iterable[str]:
    """Yield the lines of the table that starts with SUMMARY."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.triton, row.target, row.dtype), []).append(row)
    for names, group in groups.items():
        gated = [row for row in group if row.gated]
        cells = (
            *names, len(group), sum(not row.faults for row in group),
            sum(bool(row.error) for row in group), len(gated), sum(row.failed for row in gated),
            max(row.registers or 0 for row in group),
        )  # fmt: skip
        yield "| " + " | ".join(map(str, cells)) + " |"


def _launch_lines(rows: list[Row], versions: list[str]) -> Iterable[str]:
    """Yield a line for each launch, with the figures of each Triton.

    Types whose figures are the same share a line.
    """
    missing = " | " * 3
    # A shape may launch a kernel several times, so launches are numbered.
    seen: dict[tuple[str, ...], int] = {}
    launches: dict[tuple[tuple[str, str, str], int, str], dict[str, str]] = {}
    for row in rows:
        names = row.kernel, row.shape, row.target
        same = (*names, row.dtype, row.triton)
        count = seen[same] = seen.get(same, 0) + 1
        cells = f"does not compile{missing}" if row.error else figures(row)
        launches.setdefault((names, count, row.dtype), {})[row.triton] = cells
    types: dict[tuple[tuple[str, str, str], int, str], list[str]] = {}
    for (names, count, dtype), by_version in launches.items():
        cells = " | ".join(by_version.get(version, missing) for version in versions)
        types.setdefault((names, count, cells), []).append(dtype)
    for (names, _, cells), dtypes in types.items():
        yield f"| {' | '.join(names)} | {', '.join(dtypes)} | {cells} |"


def reported_hash(text: str) -> str:
    """Return the code hash in the head of docs/compiled.md, "" if there is none."""
    match = re.search(r"code hash `([0-9a-f]+)`", text)
    return match.group(1) if match else ""
