"""Compile every kernel for every GPU target, without a GPU: `python -m kernels.compile`.

Each op of `kernels.registry` is called on tensors without memory and its launches are recorded.
Each recorded launch is compiled for each target, with the constants and the divisibility of strides
that a real launch has; launches that are the same to the compiler are compiled once. A table lists
registers, spilled bytes, shared memory and whether the code has instructions of the matrix unit.

`--triton 3.6` compiles with another Triton, in a process of its own: see `kernels.triton_versions`.
`--ci` is what continuous integration runs with the oldest and the newest Triton.

The exit code is 1 if a kernel does not compile or its machine code for sm_90 reads registers that
nothing wrote (`kernels.sass`), or if a forward kernel in fp16 or bf16 for sm_80 or newer, at its
default configuration, spills registers, needs more shared memory than the target has, or
(attention) has no matrix instructions. The latter faults of fp32, sm_75, gfx942 and backward
kernels are only listed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


from . import triton_versions
from .code_hash import code_hash
from .compile_report import DTYPES, HEAD, TARGETS, Row, line, report, summary
from .launch import INTERPRETED, MIN_CAPABILITY
from .recorder import Case, Launch, cases, recording, specialise
from .sass import uninitialized_reads
from .triton_versions import VersionError

# What --ci compiles in fp16: the targets for each Triton, by its name for --triton.
CI = {"oldest": ("sm_90",), "newest": ("sm_90", "sm_120")}


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


def run_cuda_tool(name: str, *options: str, cubin: bytes) -> str:
    """Return the output of a CUDA tool that the triton package ships, such as "cuobjdump".

    cubin: the content of the file that it reads.
    """
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), *options, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def disassemble(compiled: Any) -> str:
    """Return the machine code (SASS) of triton's CompiledKernel, as `nvdisasm -c` prints it."""
    # -ndf leaves out an analysis that adds nothing for our kernels and takes a quarter of the time.
    return run_cuda_tool("nvdisasm", "-c", "-ndf", cubin=compiled.asm["cubin"])


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
    """Set the row's figures: registers, spilled bytes, shared memory and what its code holds.

    compiled: triton's CompiledKernel, from `build`.
    """
    row.shared = compiled.metadata.shared
    pattern = TARGETS[row.target][1]
    row.matrix = ""
    if row.target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        row.matrix = _count(pattern, text)
        row.registers = _number(r"\.vgpr_count:\s*(\d+)", text)
        row.spilled = 4 * _number(r"\.vgpr_spill_count:\s*(\d+)", text)
        return
    cubin = compiled.asm["cubin"]
    usage = run_cuda_tool("cuobjdump", "--dump-resource-usage", cubin=cubin)
    if row.multiplies:  # nvdisasm takes longer than compiling a small kernel
        code = disassemble(compiled)
        row.matrix = _count(pattern, code)
        row.unwritten = len(uninitialized_reads(code)) if row.target == "sm_90" else 0
    row.registers = _number(r"REG:(\d+)", usage)
    row.spilled = sum(int(n) for n in re.findall(r"(?:LOCAL|STACK):(\d+)", usage))


@lru_cache
def launches(dtype: str) -> list[tuple[Case, Launch]]:
    """Return every recorded launch of every case of `kernels.recorder`; dtype: a key of DTYPES."""
    out = []
    for case in cases():
        with recording() as log:
            case.run(DTYPES[dtype])
        out += [(case, launch) for launch in log]
    return out


@dataclass(frozen=True)
class Task:
    """A launch to compile: the index in `launches(dtype)`, and a key of TARGETS."""

    target: str
    dtype: str
    index: int

    def row(self) -> Row:
        """Return the row of this launch, without figures."""
        case, launch = launches(self.dtype)[self.index]
        kernel = launch.kernel.__name__
        return Row(case.op, kernel, case.title, self.dtype, self.target, case.mode)


def supported(target: str, dtype: str) -> bool:
    """Return whether the kernels support a dtype on a target, as `launch.device_problem` says."""
    number = target.removeprefix("sm_")
    if number == target:  # an AMD GPU
        return True
    return divmod(int(number), 10) >= MIN_CAPABILITY.get(DTYPES[dtype], (7, 5))


def plan(targets: Sequence[str], dtypes: Sequence[str], only: str = "") -> list[Task]:
    """Return the launches to compile: of those that are the same to the compiler, the first.

    only: leave out cases whose op and shape, "attention SD 1.5 64x77 d160", do not contain this
    text.
    """
    tasks: list[Task] = []
    for target in targets:
        for dtype in dtypes:
            if not supported(target, dtype):
                continue
            seen: set[tuple[str, str, str]] = set()
            for i, (case, launch) in enumerate(launches(dtype)):
                # What decides the code: the kernel, types, constants and divisibility of its
                # arguments, and the options.
                same = launch.kernel.__name__, str(specialise(launch, target)), str(launch.options)
                if only in f"{case.op} {case.title}" and same not in seen:
                    seen.add(same)
                    tasks.append(Task(target, dtype, i))
    return tasks


def compile_task(task: Task) -> Row:
    """Return the row of a task with its figures, or with an `error` if it does not compile."""
    row = task.row()
    try:
        inspect(build(launches(task.dtype)[task.index][1], task.target), row)
    except Exception as error:  # compilers raise exceptions of many types
        row.error = f"does not compile: {(str(error).strip() or repr(error)).splitlines()[0][:100]}"
    return row


def each_result(
    function: Callable[[Any], Any], tasks: Sequence[Any], jobs: int
) -> Iterator[tuple[Any, Any]]:
    """Call `function` for each task in `jobs` processes; yield (task, result) in the same order.

    The result is None if the call ended its process, as a crash of a compiler does. To find out
    which call that was, the tasks that are left run one at a time until it happens again.
    """
    left, together = list(tasks), jobs
    while left:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(together, len(left)), context)
        try:
            futures = [pool.submit(function, task) for task in left]
            for future in futures:
                result = future.result()
                yield left.pop(0), result
        except BrokenProcessPool:
            if together == 1:
                yield left.pop(0), None
            together = 1 if together > 1 else jobs
        finally:
            pool.shutdown(cancel_futures=True)


def compile_all(
    targets: Sequence[str], dtypes: Sequence[str], only: str = "", jobs: int = 1
) -> Iterator[Row]:
    """Compile each launch of `plan` in `jobs` processes; yield its row."""
    version = triton_versions.installed()
    for task, row in each_result(compile_task, plan(targets, dtypes, only), jobs):
        row = row or replace(task.row(), error="does not compile: the compiler crashed")
        yield replace(row, triton=version)


def compile_in(folder: Path, arguments: list[str]) -> list[Row]:
    """Run the command line `arguments` with the Triton in `folder`; return its rows.

    Raises VersionError if that process fails.
    """
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "rows.json"
        sys.stdout.flush()
        done = subprocess.run(
            [sys.executable, "-m", "kernels.compile", *arguments, "--rows", str(file)],
            env=triton_versions.environment(folder),
        )
        if done.returncode not in (0, 1) or not file.is_file():
            raise VersionError(f"The Triton in {folder} ended before everything was compiled.")
        return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    out = argparse.ArgumentParser(
        "python -m kernels.compile", description=(__doc__ or "").split("\n")[0]
    )
    out.add_argument("--target", action="append", choices=list(TARGETS), help="default: all")
    out.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: all")
    out.add_argument("--only", default="", help="ops and shapes that hold this text")
    out.add_argument(
        "--triton", action="append", metavar="VERSION",
        help="oldest (that is supported), newest (the installed one), a version such as 3.6, which "
        "is installed in the user's cache, or a folder that holds one; may be given several times; "
        "default: newest",
    )  # fmt: skip
    out.add_argument(
        "--ci", action="store_true",
        help="compile what continuous integration does: in fp16, "
        + "; ".join(f"with the {name} Triton for {' and '.join(CI[name])}" for name in CI),
    )  # fmt: skip
    out.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at work")
    out.add_argument("--report", type=Path, help="write the tables to this file too")
    out.add_argument("--rows", type=Path, help="write the rows to this file, as JSON")
    return out


def compile_with(name: str, folder: Path | None, args: argparse.Namespace) -> list[Row]:
    """Compile as the command line says with one Triton; print and return the rows.

    name: as given to --triton. folder: as `triton_versions.find` returns it. Raises VersionError if
    it cannot be used.
    """
    targets = CI[name] if args.ci else args.target or list(TARGETS)
    dtypes = ["fp16"] if args.ci else args.dtype or list(DTYPES)
    jobs = max(1, args.jobs or 1)
    if folder:
        print(f"Triton {triton_versions.version_in(folder)}", flush=True)
        given = [*(f"--target={x}" for x in targets), *(f"--dtype={x}" for x in dtypes)]
        return compile_in(folder, [*given, f"--only={args.only}", f"--jobs={jobs}"])
    if not args.rows:
        print(f"Triton {triton_versions.installed()}")
    done = []
    print("\n".join(HEAD))
    for row in compile_all(targets, dtypes, args.only, jobs):
        print(line(row), flush=True)
        done.append(row)
    return done


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if no kernel fails, 1 if one does, 2 for bad arguments."""
    options = parser()
    args = options.parse_args(argv)
    names = args.triton or (list(CI) if args.ci else ["newest"])
    if args.ci and (args.target or args.dtype or not CI.keys() >= set(names)):
        options.error("--ci has its own targets and types, and --triton is oldest or newest there.")
    for file in filter(None, (args.report, args.rows)):
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            options.error(f"{file} cannot be written.")
    if INTERPRETED:
        print("TRITON_INTERPRET is set: unset it to compile.", file=sys.stderr)
        return 2
    code = code_hash()
    done: list[Row] = []
    try:
        folders = [triton_versions.find(name) for name in names]
        for name, folder in zip(names, folders, strict=True):
            done += compile_with(name, folder, args)
    except VersionError as error:
        print(error, file=sys.stderr)
        return 2
    texts: dict[Path, str] = {}
    if args.rows:
        texts[args.rows] = json.dumps([asdict(row) for row in done])
    else:
        print(summary(done))
    if args.report:
        texts[args.report] = report(done, code)
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            print(f"Cannot write {path}: {error.strerror}.", file=sys.stderr)
            return 2
    return 1 if any(row.failed for row in done) else 0


if __name__ == "__main__":
    sys.exit(main())
