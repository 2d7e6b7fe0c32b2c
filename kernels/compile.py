"""`python -m kernels.compile`: every kernel for every GPU target, with no GPU in the machine.

Each op is called on tensors without memory while its launches are recorded; what would have been
launched is then compiled for a target, with the same constants and the same divisibility of strides
as in a real launch. Printed are registers, spilled bytes, shared memory against the target's limit
and whether the matrix unit's instructions are in the code.

A forward kernel in fp16 or bf16 for sm_80 and newer that spills, overruns shared memory or lacks
matrix instructions (attention) at its default configuration is a failure, exit code 1. The rest,
fp32, sm_75, backward and gfx942, is reported.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch

# Shared memory a block may have, bytes; what the matrix unit's instructions are called.
TARGETS = {
    "sm_75": (64 << 10, r"\bHMMA"),
    "sm_80": (163 << 10, r"\bHMMA"),
    "sm_86": (99 << 10, r"\bHMMA"),
    "sm_89": (99 << 10, r"\bHMMA"),
    "sm_90": (227 << 10, r"\bHGMMA|\bHMMA"),  # the first takes blocks of 64 rows, the second less
    "sm_100": (227 << 10, r"\bUTC\w*MMA|\bHMMA"),
    "sm_120": (99 << 10, r"\bHMMA"),
    "gfx942": (64 << 10, r"v_mfma"),
}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
}


@dataclass(frozen=True)
class Case:
    """An op at a shape of Stable Diffusion: `run(dtype)` launches it on meta tensors."""

    op: str
    shape: str
    run: Callable[[torch.dtype], None]


@dataclass(frozen=True)
class Launch:
    """One kernel with the arguments it would have been launched with."""

    kernel: object
    args: dict
    options: dict


@dataclass
class Row:
    """What the compiler made of one launch."""

    op: str
    kernel: str
    shape: str
    dtype: str
    target: str
    registers: int | None = None
    spilled: int | None = None
    shared: int | None = None
    matrix: str | None = None  # "12 HGMMA"
    error: str | None = None

    @property
    def gated(self) -> bool:
        forward = not self.kernel.startswith(("dkv", "dq", "delta", "bwd", "dx"))
        return forward and self.dtype != "fp32" and self.target not in ("sm_75", "gfx942")

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words; whether that is a failure, `gated` tells."""
        if self.error:
            return [self.error]
        out = []
        if self.spilled:
            out.append(f"spills {self.spilled} bytes")
        if self.shared > TARGETS[self.target][0]:
            out.append(f"takes {self.shared} bytes of shared memory")
        multiplies = self.op != "group_norm" and self.kernel != "delta_kernel"
        if multiplies and not self.matrix and self.dtype != "fp32":  # IEEE fp32 has no such unit
            out.append("has no matrix instruction")
        return out


def _attention(b: int, tq: int, tk: int, h: int, d: int, *, backward: bool) -> Callable:
    def run(dtype: torch.dtype) -> None:
        from . import attention as a

        q = torch.empty((b, tq, h, d), dtype=dtype, device="meta")
        k = torch.empty((b, tk, h, d), dtype=dtype, device="meta")
        if not backward:
            a.attention_op._init_fn(q, k, k)
            return
        lse = torch.empty((b, h, tq), device="meta")
        a.attention_backward_op._init_fn(q, k, k, q, lse, q)

    return run


def _words(b: int, tq: int, h: int, d: int) -> Callable:
    def run(dtype: torch.dtype) -> None:
        from . import word_attention as w

        q = torch.empty((b, tq, h, d), dtype=dtype, device="meta")
        k = torch.empty((b, 77, h, d), dtype=dtype, device="meta")
        w.word_attention_op._init_fn(q, k, k)

    return run


def _norm(n: int, c: int, side: int, last: bool, *, unet: bool, backward: bool = False) -> Callable:
    def run(dtype: torch.dtype) -> None:
        from . import group_norm as g

        x = torch.empty((n, c, side, side), dtype=dtype, device="meta")
        if last:
            x = x.to(memory_format=torch.channels_last)
        w = torch.empty((c,), dtype=dtype, device="meta")
        shift = torch.empty((n, c), dtype=dtype, device="meta") if unet else None
        if not backward:
            g.group_norm_op._init_fn(x, 32, w, w, 1e-5, True, shift)
            return
        stats = torch.empty((n, 32, 3), device="meta")
        g.group_norm_backward_op._init_fn(x, 32, w, w, True, shift, stats, x)

    return run


# (model, queries, heads, head size): self attention's lengths; each also looks at 77 words.
LAYERS = (
    ("SD 1.5", 4096, 8, 40),
    ("SD 1.5", 1024, 8, 80),
    ("SD 1.5", 256, 8, 160),
    ("SD 1.5", 64, 8, 160),
    ("SD 2.1", 9216, 5, 64),
    ("SD 2.1", 576, 20, 64),
    ("SDXL", 4096, 10, 64),
    ("SDXL", 1024, 20, 64),
    ("odd", 333, 3, 96),
    ("odd", 100, 1, 256),
)
# (model, samples, channels, side, from the UNet)
NORMS = (
    ("SD 1.5", 2, 320, 64, True),
    ("SD 1.5", 2, 960, 64, True),
    ("SD 1.5", 2, 640, 32, True),
    ("SD 1.5", 2, 1920, 32, True),
    ("SD 1.5", 2, 1280, 16, True),
    ("SD 1.5", 2, 2560, 8, True),
    ("SDXL", 2, 320, 128, True),
    ("VAE", 1, 512, 64, False),
    ("VAE", 1, 256, 256, False),
    ("VAE", 1, 128, 512, False),
)


def cases() -> list[Case]:
    """Every op at every shape class, forward and backward."""
    out = []
    for model, t, h, d in LAYERS:
        for tk in (t, 77):
            name = f"{model} {t}x{tk} d{d}"
            out.append(Case("attention", name, _attention(2, t, tk, h, d, backward=False)))
            out.append(Case("attention", name, _attention(2, t, tk, h, d, backward=True)))
        out.append(Case("word_attention", f"{model} {t}x77 d{d}", _words(2, t, h, d)))
    for model, n, c, side, unet in NORMS:
        for last in (False, True):
            name = f"{model} {c}x{side}x{side} {'NHWC' if last else 'NCHW'}"
            for backward in (False, True):
                run = _norm(n, c, side, last, unet=unet, backward=backward)
                out.append(Case("group_norm", name, run))
    return out


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """While this is open, kernels of this package are not launched but written down."""
    from . import attention, group_norm, word_attention

    log: list[Launch] = []

    class Recorder:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            def launch(*args, **named):
                given = dict(zip(self.kernel.arg_names, args, strict=False)) | named
                options = {k: given.pop(k) for k in ("num_warps", "num_stages") if k in given}
                log.append(Launch(self.kernel, given, options))

            return launch

    kept = []
    for module in (
        attention.forward,
        attention.backward,
        word_attention,
        group_norm.forward,
        group_norm.backward,
    ):
        for name, value in list(vars(module).items()):
            if name.endswith("_kernel"):
                kept.append((module, name, value))
                setattr(module, name, Recorder(value))
    try:
        yield log
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


def specialise(launch: Launch, target: str) -> tuple[dict, dict, dict]:
    """Signature, constants and attributes as Triton derives them from a real launch's arguments."""
    kernel, names = launch.kernel, launch.kernel.arg_names
    constant = {names[p.num] for p in kernel.params if p.is_constexpr}
    signature, constants, attributes = {}, {}, {}
    for i, name in enumerate(names):
        value = launch.args[name]
        if name in constant or (isinstance(value, int) and value == 1):
            signature[name], constants[(i,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
            if target.startswith("gfx") and value.numel() * value.element_size() < 2**31:
                attributes[(i,)].append(["tt.pointer_range", 32])
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def build(launch: Launch, target: str):
    """The compiled kernel of `launch` for `target`."""
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
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _count(pattern: str, code: str) -> str:
    found = Counter(re.findall(pattern, code))
    return ", ".join(f"{n} {name}" for name, n in found.most_common())


def inspect(compiled, row: Row) -> None:
    """Fill registers, spills, shared memory and matrix instructions in."""
    row.shared = compiled.metadata.shared
    pattern = TARGETS[row.target][1]
    if row.target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        row.matrix = _count(pattern, text)
        row.registers = int(re.search(r"\.vgpr_count:\s*(\d+)", text).group(1))
        row.spilled = 4 * int(re.search(r"\.vgpr_spill_count:\s*(\d+)", text).group(1))
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
    row.registers = int(re.search(r"REG:(\d+)", usage).group(1))
    row.spilled = sum(int(n) for n in re.findall(r"(?:LOCAL|STACK):(\d+)", usage))
    row.matrix = _count(pattern, code)


def rows(target: str, dtype: str, only: str = "") -> list[Row]:
    """Compile and inspect the cases that hold the text `only`; launches that are the same to the
    compiler are compiled once."""
    out, seen = [], set()
    for case in cases():
        if only not in f"{case.op} {case.shape}":
            continue
        with recording() as log:
            case.run(DTYPES[dtype])
        for launch in log:
            same = launch.kernel.__name__, str(specialise(launch, target)), str(launch.options)
            if same in seen:
                continue
            seen.add(same)
            row = Row(case.op, launch.kernel.__name__, case.shape, dtype, target)
            try:
                inspect(build(launch, target), row)
            except Exception as error:  # a compiler fails in ways of its own
                row.error = f"does not compile: {str(error).strip().splitlines()[0][:100]}"
            out.append(row)
    return out


HEAD = (
    "| kernel | shape | type | target | registers | spilled | shared | matrix | |",
    "|---|---|---|---|---|---|---|---|---|",
)


def line(row: Row) -> str:
    faults = row.faults
    mark = "ok" if not faults else ("**fails**: " if row.gated else "") + "; ".join(faults)
    figures = (row.registers, row.spilled, row.shared, row.matrix)
    shown = " | ".join("" if f is None else str(f) for f in figures)
    return f"| {row.kernel} | {row.shape} | {row.dtype} | {row.target} | {shown} | {mark} |"


def failures(done: list[Row]) -> int:
    return sum(row.gated and bool(row.faults) for row in done)


def verdict(done: list[Row]) -> str:
    return (
        f"{len(done)} kernels compiled, {failures(done)} of those that must be right are not, "
        f"{sum(bool(r.faults) for r in done) - failures(done)} others are remarked on."
    )


def report(done: list[Row]) -> str:
    """Everything in markdown: a summary for each target and type, what is remarked on, all."""
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
    from .launch import INTERPRETED

    parser = argparse.ArgumentParser(
        "python -m kernels.compile", description=__doc__.split("\n")[0]
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
        if (target, dtype) != ("sm_75", "bf16")  # no such matrix instructions there
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
