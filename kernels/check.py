"""Compare every kernel with plain PyTorch in fp64 on new random inputs: `python -m kernels.check`.

The kernels of `kernels.registry` run at Stable Diffusion's shapes with every configuration that can
be chosen there, or at small shapes if Triton interprets them. Each kernel, mode and dtype has a
process of its own: a case that crashes it (an illegal memory access) or takes longer than the limit
has failed, and the rest goes on in a new process. Fresh memory is filled with NaN, so that values
that a kernel leaves out show, and each case runs twice and must give the same bits. How large an
error may be depends on the error that PyTorch makes in the same dtype, see `allowed_error`. The
results on a GPU are written as its verdict (`kernels.verdict`), which decides what `auto` may use.
"""

from __future__ import annotations

import argparse
import datetime
import math
import multiprocessing
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from . import verdict
from .launch import DTYPES, INTERPRETED, device_index, device_problem, dtype_name
from .registry import KERNELS, Kernel, load
from .shapes import AttentionShape, Shape
from .verdict import Config, Result

# Rounding error of a dtype, relative to the largest value of the result.
FLOOR = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
HEAD = ("place", "shape", "configuration", "error", "allowed", "")
WIDTHS = (34, 34, 28, 8, 8, 0)
LIMIT = 120.0  # seconds that one case may take, compilation included


def allowed_error(theirs: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the largest absolute error with which a kernel's result in `dtype` counts as right.

    Twice the error of PyTorch's result in that dtype (`theirs`) against the fp64 result (`exact`),
    plus the rounding error of `dtype` at the largest value of `exact`.
    """
    return (2 * max_error(theirs, exact) + FLOOR[dtype] * exact.abs().max()).item()


def max_error(result: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Return a result's largest absolute difference from `exact` (fp64): a tensor with one value.

    It is NaN if any value is NaN.
    """
    return (result.double() - exact).abs().max()


def run(name: str, inputs: dict[str, Any], mode: str, seed: int) -> list[torch.Tensor]:
    """Call a kernel or its reference by name; return its outputs or the gradients of its inputs.

    name: "module:function", as a row of KERNELS has it. inputs: its keyword arguments. mode:
    "forward" returns the outputs, "backward" the gradients of the inputs that are tensors. The
    gradient of the output is standard normal, from `seed`, and rounded to fp16, so that it is the
    same for each dtype.
    """
    function = load(name)
    if mode == "forward":
        with torch.no_grad():
            out = function(**inputs)
        return list(out) if isinstance(out, tuple) else [out]
    inputs = {
        k: v.detach().requires_grad_() if isinstance(v, torch.Tensor) else v
        for k, v in inputs.items()
    }
    out = function(**inputs)
    generator = torch.Generator(out.device).manual_seed(seed + 1)
    gradient = torch.randn(out.shape, generator=generator, device=out.device).half().to(out)
    tensors = [v for v in inputs.values() if isinstance(v, torch.Tensor)]
    return list(torch.autograd.grad(out, tensors, gradient))


@dataclass(frozen=True)
class Case:
    """One comparison with fp64 to be made: a kernel at a shape with one configuration.

    mode            "forward" or "backward"
    config          the configuration that is checked, such as {"M": 64, "N": 32, "num_warps": 4}
    place           name under which the result is stored, such as "attention/forward/d40/float16"
    forced          configurations of all kernels that run, by place: `config` and, for attention's
                    backward pass, those of the other kernels
    """

    kernel: Kernel
    shape: Shape
    dtype: torch.dtype
    mode: str
    place: str
    config: Config
    forced: dict[str, Config]


@contextmanager
def nan_in_fresh_memory() -> Iterator[None]:
    """In a `with` block torch.empty fills memory with NaN, so that values left unwritten show."""
    settings: Any = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        settings.fill_uninitialized_memory = filled


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two runs of a kernel gave tensors with the same bits; NaN is equal to NaN.

    The tensors have one dtype, of 2 or 4 bytes a value.
    """
    integer = {2: torch.int16, 4: torch.int32}[a.element_size()]
    return torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))


class Checker:
    """Compares kernels with PyTorch, one case after another, on random inputs made from a seed.

    It keeps the reference results of the last shape and mode, which the next case often needs
    again.
    """

    def __init__(self, device: str, seed: int):
        self.device, self.seed = device, seed
        self._kept: tuple[Any, list[Any]] = (None, [])

    def references(self, case: Case) -> list[Any]:
        """Return the inputs of a case's kernel calls, and PyTorch's results to compare with.

        The list has a tuple (inputs, results in the case's dtype, results in fp64) for each call.
        Attention has one call for a shape, GroupNorm one for each layer in it. Results are lists of
        outputs or, in mode "backward", of gradients. Cached for the last kernel, shape, dtype and
        mode.
        """
        what = case.kernel.name, case.shape, case.dtype, case.mode
        if self._kept[0] != what:
            calls = load(case.kernel.make_inputs)(case.shape, case.dtype, self.device, self.seed)
            out = []
            for inputs in calls:
                inputs64 = {
                    k: v.double().contiguous() if isinstance(v, torch.Tensor) else v
                    for k, v in inputs.items()
                }
                theirs = run(case.kernel.reference, inputs, case.mode, self.seed)
                out.append(
                    (inputs, theirs, run(case.kernel.reference, inputs64, case.mode, self.seed))
                )
            self._kept = what, out
        return self._kept[1]

    def check(self, case: Case) -> Result:
        """Check the kernel of a case against PyTorch in fp64; return the Result, noted "ok" or not.

        The kernel runs twice on the same inputs. The note is "WRONG" if the error is larger than
        allowed, "UNEQUAL" if the two runs differ in any bit, and "FAILED: why" for an exception,
        which is not raised.
        """
        error = allowed = math.nan
        try:
            pairs, equal = [], True
            for inputs, theirs, exact in self.references(case):
                with verdict.force(case.forced), nan_in_fresh_memory():
                    ours = run(case.kernel.function, inputs, case.mode, self.seed)
                    again = run(case.kernel.function, inputs, case.mode, self.seed)
                equal = equal and all(map(equal_bits, ours, again))
                pairs += [
                    (max_error(a, c).item(), allowed_error(b, c.double(), a.dtype))
                    for a, b, c in zip(ours, theirs, exact, strict=True)
                ]
            error, allowed = worst(pairs)
            note = "WRONG" if not error <= allowed else "ok" if equal else "UNEQUAL"
        except Exception as problem:
            note = f"FAILED: {first_line(problem)}"
        return Result(case.place, case.config, case.shape.full_title, error, allowed, note)


def worst(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the pair (error, allowed error) with the largest ratio; NaN counts as the largest."""
    return max(pairs, key=lambda p: math.inf if math.isnan(p[0]) else p[0] / max(p[1], 1e-30))


def cases(
    kernel: Kernel,
    device: str,
    quick: bool,
    dtypes: Iterable[torch.dtype] | None = None,
    head_sizes: Iterable[int] = (),
) -> Iterator[Case]:
    """Yield all the checks that `python -m kernels.check` makes of a kernel, as a Case for each.

    A Case is a shape, dtype, mode (forward or backward) and configuration with which the kernel is
    compared with PyTorch in fp64. quick: only the forward pass, only the shapes marked `quick`, and
    no configuration twice; in fp16 unless `dtypes` says otherwise. dtypes: None means all; those
    that the device does not support are left out. head_sizes: for attention, head sizes to check
    besides those of its usual shapes.
    """
    target, listed = torch.device(device), set()
    wanted = tuple(dtypes or ((torch.float16,) if quick else DTYPES))
    modes = kernel.modes[:1] if quick else kernel.modes
    for dtype in wanted:
        if device_problem(target, dtype) is not None:
            continue
        for mode in modes:
            shapes = kernel.small_shapes if INTERPRETED else kernel.shapes
            for shape in (*shapes, *_shapes_of(head_sizes, shapes)):
                if not INTERPRETED and ((quick and not shape.quick) or _too_large(shape, mode)):
                    continue
                find = load(kernel.check_configurations)
                for place, config, forced in find(shape, dtype, mode, target, not quick):
                    once = place, frozenset(config.items())
                    if quick and once in listed:
                        continue
                    listed.add(once)
                    yield Case(kernel, shape, dtype, mode, place, config, forced)


def _shapes_of(head_sizes: Iterable[int], shapes: tuple[Shape, ...]) -> Iterator[AttentionShape]:
    """Yield shapes at which to check attention for head sizes that `shapes`, its usual ones, lack.

    head_sizes: those of a user's model, for example. Each one that `shapes` lack and the kernel
    takes gets a shape with 77 keys and one with 1024 keys, if `shapes` have one with as many keys.
    If `shapes` are those of another kernel, nothing is yielded.
    """
    attention = [s for s in shapes if isinstance(s, AttentionShape)]
    if attention:
        for head_size in sorted(set(head_sizes) - {s.head_size for s in attention}):
            if head_size % 8 == 0 and 8 <= head_size <= 256:
                for keys in sorted({s.keys for s in attention if s.keys in (77, 1024)}):
                    yield AttentionShape("own", 0, 1, 1024, keys, 2, head_size, quick=True)


def _too_large(shape: Shape, mode: str) -> bool:
    """Return whether a check is skipped because its fp64 gradients would need too much memory.

    True only for attention's backward pass with many queries and keys. The limit is low because a
    model's weights may be on the same GPU.
    """
    if mode == "forward" or not isinstance(shape, AttentionShape):
        return False
    return shape.batch * shape.queries * shape.keys > 1 << 26


def usable(device: str) -> bool:
    """Return whether this process can still compute on `device`.

    After an illegal memory access a process can no longer use the GPU.
    """
    try:
        return torch.ones(2, device=device).sum().item() == 2
    except Exception:
        return False


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, at most 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _work(pipe: Connection, group: list[Case], device: str, seed: int) -> None:
    """Check the cases in this child process: send True through `pipe` before each, then its Result.

    It returns early if a case made the GPU unusable for the process; the parent starts a new one.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device_index(torch.device(device)))  # "cuda" alone is refused there
    checker = Checker(device, seed)
    for case in group:
        pipe.send(True)
        result = checker.check(case)
        pipe.send(result)
        if result.note.startswith("FAILED") and not usable(device):
            return  # the rest needs a new process


def check_group(group: list[Case], device: str, seed: int, limit: float) -> Iterator[Result]:
    """Compare a kernel with fp64 in each case of `group`; yield the Results in order.

    A case is one shape and configuration of a kernel. All run in a child process. If a case crashes
    it or takes longer than `limit` seconds, its Result says "CRASHED" or "HUNG", and a new process
    goes on with the next case. seed: of the random inputs.
    """
    rest = list(group)
    context = multiprocessing.get_context("spawn")
    while rest:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(there, rest, device, seed), daemon=True)
        process.start()
        there.close()
        note, begun = "", False
        try:
            while rest and not note:
                # a new process imports torch before its first case
                if not here.poll(limit if begun else max(limit, 60.0)):
                    note = f"HUNG: no answer in {limit:g} s"
                    break
                message = here.recv()
                begun = message is True
                if isinstance(message, Result):
                    rest.pop(0)
                    yield message
        except EOFError:
            note = "CRASHED: its process ended" if begun else ""
        process.kill() if note else None
        process.join()
        if rest and not note and not begun and process.exitcode != 0:
            note = "CRASHED: its process did not start"
        if note and rest:
            case = rest.pop(0)
            yield Result(case.place, case.config, case.shape.full_title, math.nan, math.nan, note)


def check_all(
    groups: list[list[Case]], device: str, seed: int, limit: float, jobs: int
) -> Iterator[Result]:
    """Check all cases and yield a Result for each, in the order in which they finish.

    A Case compares a kernel, at one shape and with one configuration, with PyTorch in fp64. Each
    group of cases runs in a child process of its own, `jobs` groups at a time. device: such as
    "cuda:0". seed: of the random inputs. limit: seconds that a case may take.
    """
    waiting: queue.Queue[list[Case]] = queue.Queue()
    for group in groups:
        waiting.put(group)
    done: queue.Queue[Result | None] = queue.Queue()

    def work() -> None:
        try:
            while True:
                for result in check_group(waiting.get_nowait(), device, seed, limit):
                    done.put(result)
        except queue.Empty:
            done.put(None)

    running = min(jobs, len(groups))
    for _ in range(running):
        threading.Thread(target=work, daemon=True).start()
    while running:
        result = done.get()
        if result is None:
            running -= 1
        else:
            yield result


def describe_configuration(config: Config) -> str:
    """Return a configuration in a few characters for a table: "M128 N64 w4 s3".

    That is {"M": 128, "N": 64, "num_warps": 4, "num_stages": 3}.
    """
    short = {"num_warps": "w", "num_stages": "s", "SPLIT": "split ", "one_launch": "one launch "}
    return " ".join(
        f"{short.get(k, k)}{('no', 'yes')[v] if isinstance(v, bool) else v}"
        for k, v in config.items()
    )


def print_row(result: Result) -> None:
    """Print a result of `python -m kernels.check` as a row: place, configuration, error, note."""
    cells = (
        result.place,
        result.shape,
        describe_configuration(result.config),
        f"{result.error:.1e}",
        f"{result.allowed:.1e}",
        result.note,
    )
    print(" ".join(c.ljust(w) for c, w in zip(cells, WIDTHS, strict=True)).rstrip(), flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments of `python -m kernels.check`."""
    parser = argparse.ArgumentParser(
        "python -m kernels.check", description=(__doc__ or "").split("\n")[0]
    )
    names = [dtype_name(d) for d in DTYPES]
    parser.add_argument(
        "--quick", action="store_true", help="only what drawing in fp16 needs: about ten seconds"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda or cuda:N; cpu interpreted")
    parser.add_argument("--only", metavar="NAME", help=f"of {', '.join(KERNELS)}; default: all")
    parser.add_argument("--dtype", action="append", choices=names, help="default: all, quick fp16")
    parser.add_argument(
        "--head-size", type=int, action="append", default=[], metavar="D",
        help="another head size to check attention with",
    )  # fmt: skip
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a case may take")
    parser.add_argument("--jobs", type=int, help="processes at a time; default: 4 at most")
    parser.add_argument(
        "--verdict", type=Path, metavar="FOLDER",
        help="where to write the GPU's verdict; default: the user's cache",
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `python -m kernels.check`: compare the kernels with fp64 and store the GPU's results.

    Returns 0 if all is right, 1 if something is not, 2 for bad arguments or if it can't be stored.
    """
    args = build_parser().parse_args(argv)
    if args.only not in (None, *KERNELS):
        print(f"There is no kernel {args.only!r}; there is {', '.join(KERNELS)}.", file=sys.stderr)
        return 2
    if not (math.isfinite(args.limit) and args.limit > 0) or (args.jobs or 1) < 1:
        print("--limit and --jobs must be above 0.", file=sys.stderr)
        return 2
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
        problem = device_problem(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        problem = first_line(error)
    if problem:
        print(f"The kernels can't be checked on {device}: {problem}", file=sys.stderr)
        return 2
    seed, begin = secrets.randbelow(2**31), time.monotonic()
    dtypes = [getattr(torch, name) for name in args.dtype] if args.dtype else None
    groups: dict[tuple[str, str, torch.dtype], list[Case]] = {}
    for kernel in KERNELS.values():
        if args.only in (None, kernel.name):
            for case in cases(kernel, device, args.quick, dtypes, args.head_size):
                groups.setdefault((kernel.name, case.mode, case.dtype), []).append(case)
    print(f"{'Interpreted on' if INTERPRETED else 'On'} {device}, seed {seed}.")
    print(" ".join(c.ljust(w) for c, w in zip(HEAD, WIDTHS, strict=True)).rstrip(), flush=True)
    results = []
    jobs = args.jobs or max(1, min(4, (os.cpu_count() or 1) // 2))
    for result in check_all(list(groups.values()), device, seed, args.limit, jobs):
        print_row(result)
        results.append(result)
    seconds = time.monotonic() - begin
    wrong = sorted({r.place for r in results if not r.right})
    print(
        f"{len(results)} cases in {seconds:.0f} s. "
        + (f"Wrong: {', '.join(wrong)}." if wrong else "All are right.")
    )
    if torch.device(device).type == "cuda" and not INTERPRETED:
        recorded = describe_check(device, args.quick, seconds)
        try:
            print(write_verdict(torch.device(device), results, recorded, args.verdict))
        except OSError as error:
            print(f"The verdict can't be written: {error}", file=sys.stderr)
            return 2
    return 1 if wrong else 0


def describe_check(device: str, quick: bool, seconds: float) -> dict[str, Any]:
    """Return what is stored beside a check's results: driver, torch, date, quick and seconds.

    quick: whether `--quick` was given. seconds: how long the check took.
    """
    from .bench.measure import environment

    about = environment(device)
    return {
        "driver": about.get("driver"),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "quick": quick,
        "seconds": round(seconds, 1),
    }


def write_verdict(
    device: torch.device, results: list[Result], recorded: dict[str, Any], folder: Path | None
) -> Path:
    """Save the results of a check of kernels on a GPU; they decide which kernels may run there.

    Returns the file's path. recorded: facts about the check to save with them, such as its date,
    from `describe_check`. folder: where the file is; None means the user's cache folder.
    """
    made = verdict.Verdict(verdict.machine_of(device), tuple(results), recorded)
    return verdict.write(made, folder or verdict.user_folder())


if __name__ == "__main__":
    sys.exit(main())
