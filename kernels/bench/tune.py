"""Find the fastest right configuration of each kernel at each shape on this GPU: `--tune`.

Every candidate is first compiled, in several processes that work ahead. The candidates of a kernel
run one after another in another process, which is replaced when one crashes it, hangs or was wrong.
A candidate's results on new random inputs are compared with plain PyTorch in fp64; if they are
right, it is timed. The fastest is written to kernels/tuned, where launches find it, if it is
clearly faster than the default. What is wrong, crashes, hangs or does not compile is never written
as a configuration; the file lists it as failed.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from .. import launch, verdict
from ..check import allowed_error, equal_bits, max_error, nan_in_fresh_memory, usable, worst
from ..compile import disassemble
from ..recorder import Launch, recording
from ..registry import KERNELS, Kernel, TuningJob, load
from ..sass import uninitialized_reads
from ..shapes import Shape
from .isolated import ChildProcess, Failure, run_isolated
from .measure import Timing, environment, select_device

LIMIT = 60.0  # seconds in which a candidate must be compared and timed
COMPILE_LIMIT = 300.0  # seconds in which a candidate must be compiled
MARGIN = 0.98  # of the default's time, above which a candidate is not worth an entry
Config = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """The settings of one run of the tuner, which looks for the fastest configuration of a kernel.

    device    the GPU that is used, such as "cuda:0"
    dtype     of the kernel's inputs
    seed      of the random inputs
    seconds   how long the default configuration is timed; each other one for a quarter of that
    target    NVIDIA GPU to compile for before anything runs, "sm_90"; None: do not compile before
    timer     the function that times, "module:function": `kernels.bench.measure.time_call` or alike
    limit     seconds in which one configuration must be compared with fp64 and timed
    """

    device: str
    dtype: torch.dtype
    seed: int
    seconds: float
    target: str | None = None
    timer: str = "kernels.bench.measure:time_call"
    limit: float = LIMIT


class Task(NamedTuple):
    """One configuration of a kernel for the tuner to compile, or to compare with fp64 and time.

    session       what the tasks of one run of the tuner share: device, dtype, seed, time limits
    config        the configuration, such as {"M": 64, "N": 32}; None is the default one
    place         the Triton kernel that takes it, such as "attention/forward/d40/float16"
    shape, mode   the call to time: `kernel`'s function at this shape, "forward" or "backward"
    """

    session: Session
    kernel: Kernel
    place: str
    shape: Shape
    mode: str
    config: Config | None


def tasks_of(session: Session, kernel: Kernel, job: TuningJob) -> list[Task]:
    """Return a Task for each configuration that the tuner shall test for one kernel and shape.

    The first is for the default configuration, the others are for the candidates of `job`. Each
    task is to compile one configuration, or to check and time it.
    """
    where = session, kernel, job.place, job.shape, job.mode
    return [Task(*where, config) for config in (None, *job.candidates)]


def use(task: Task) -> Any:
    """Return a context manager in which kernels are launched with the task's configuration."""
    return verdict.force({} if task.config is None else {task.place: task.config})


def compile_candidate(task: Task) -> Failure | None:
    """Compile a configuration's kernels into Triton's cache; return why it can't be used.

    None if it can. Machine code that reads registers which nothing wrote (ptxas can make such code)
    is refused: running it may crash the GPU's context.
    """
    session = task.session
    assert session.target
    with recording(session.target) as log, use(task):
        load(task.kernel.launch_on_meta)(task.shape, session.dtype, task.mode)
    for recorded in log:
        try:
            compiled = compile_launch(recorded, session.target)
        except Exception as error:  # compilers raise exceptions of many types
            return Failure.of("does not compile", error)
        if session.target == "sm_90" and uninitialized_reads(disassemble(compiled)):
            name = recorded.kernel.__name__
            return Failure(f"miscompiled: {name} reads registers that were never written")
    return None


class _Driver:
    """A driver that lets Triton compile for a GPU that this process does not use.

    It answers only what a compilation asks for. target: "sm_90".
    """

    def __init__(self, target: str) -> None:
        self.target = GPUTarget("cuda", int(target.removeprefix("sm_")), 32)

    def get_current_target(self) -> GPUTarget:
        """Return the GPU that Triton compiles for."""
        return self.target

    def get_current_device(self) -> int:
        """Return the device's number, 0: Triton keeps compiled kernels by device."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Return 0, the default stream's handle: Triton asks for it, but launches nothing."""
        return 0


def compile_launch(recorded: Launch, target: str) -> Any:
    """Compile a recorded launch for an NVIDIA GPU, "sm_90"; return triton's CompiledKernel.

    It calls Triton as a launch does, so that a later launch of the same on this GPU finds the
    result in Triton's cache.
    """
    driver.set_active(_Driver(target))
    return recorded.kernel.warmup(grid=(1,), **recorded.args, **recorded.options)


def make_call(
    name: str, inputs: dict[str, Any], mode: str, seed: int
) -> Callable[[], list[torch.Tensor]]:
    """Return a function to compare and time: it gives a kernel's outputs or its inputs' gradients.

    name: the kernel or its reference, "module:function". inputs: its keyword arguments. mode: in
    "backward" the forward pass runs here, once, and the gradient of the output is standard normal,
    from `seed`, rounded to fp16; the gradients are those of all inputs that are tensors.
    """
    function = load(name)
    if mode == "forward":

        def forward() -> list[torch.Tensor]:
            with torch.no_grad():
                out = function(**inputs)
            return list(out) if isinstance(out, tuple) else [out]

        return forward
    inputs = {
        k: v.detach().requires_grad_() if isinstance(v, torch.Tensor) else v
        for k, v in inputs.items()
    }
    tensors = [v for v in inputs.values() if isinstance(v, torch.Tensor)]
    out = function(**inputs)
    generator = torch.Generator(out.device).manual_seed(seed + 1)
    gradient = torch.randn(out.shape, generator=generator, device=out.device).half().to(out)
    return lambda: list(torch.autograd.grad(out, tensors, gradient, retain_graph=True))


@lru_cache(maxsize=1)
def _expected(
    session: Session, kernel: Kernel, shape: Shape, mode: str
) -> tuple[dict[str, Any], list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return random inputs for a kernel at `shape`, and PyTorch's results for these inputs.

    The kernel's own results are compared with the latter. Returns (inputs, results). inputs: the
    keyword arguments. results: a pair of tensors for each output in mode "forward", for each
    gradient in mode "backward"; the first is computed in the inputs' dtype, the second in fp64.
    Only the last call is cached.
    """
    (inputs,) = load(kernel.make_inputs)(shape, session.dtype, session.device, session.seed)
    inputs64 = {
        k: v.double().contiguous() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()
    }
    theirs, exact = (
        make_call(kernel.reference, x, mode, session.seed)() for x in (inputs, inputs64)
    )
    return inputs, [(a, b.double()) for a, b in zip(theirs, exact, strict=True)]


def measure_candidate(task: Task) -> Timing | Failure:
    """Run a kernel with the task's configuration: check that it is right, then time it.

    Returns the time, or a Failure with the reason if it is wrong or does not run. Right means that
    its results are close enough to those of the reference in fp64, and that a call after the timing
    gives the same bits. Memory that it writes to is filled with NaN first, so that values left
    unwritten show.
    """
    session, kernel = task.session, task.kernel
    select_device(session.device)
    try:
        inputs, expected = _expected(session, kernel, task.shape, task.mode)
        with patch.object(launch, "load_table", lambda _: {}), use(task):
            call = make_call(kernel.function, inputs, task.mode, session.seed)
            with nan_in_fresh_memory():
                ours = call()
            error, allowed = worst(
                [
                    (max_error(a, exact).item(), allowed_error(b, exact, a.dtype))
                    for a, (b, exact) in zip(ours, expected, strict=True)
                ]
            )
            if not error <= allowed:
                reason = f"wrong: off by {error:.1e}, allowed are {allowed:.1e}"
                return Failure(reason, new_process=True)
            seconds = session.seconds if task.config is None else session.seconds / 4
            timing = load(session.timer)(call, session.device, seconds)
            if not all(map(equal_bits, ours, call())):
                return Failure("wrong: a later call gave other bits", new_process=True)
            return timing
    except Exception as error:  # too much shared memory, an illegal access, a compiler's error
        return Failure.of("failed", error, new_process=not usable(session.device))


def measure_all(tasks: Sequence[Task], processes: int) -> Iterator[Timing | Failure]:
    """Compile each task's kernel in its configuration and time it; yield the results in order.

    A result is a Timing, or a Failure that says why the configuration can't be used. processes: how
    many processes compile the next tasks, while another one times.
    """
    compiled: Iterator[Failure | None] = iter([None] * len(tasks))
    if tasks and tasks[0].session.target:
        compiled = run_isolated(compile_candidate, tasks, COMPILE_LIMIT, processes)
    limit = tasks[0].session.limit if tasks else LIMIT
    child: ChildProcess[Task, Timing] = ChildProcess(measure_candidate, limit)
    try:
        for task, failure in zip(tasks, compiled, strict=True):
            yield child.run(task) if failure is None else failure
    finally:
        child.stop()


def choose(
    key: str, results: Sequence[tuple[Config | None, Timing | Failure]]
) -> tuple[Config, Timing] | None:
    """Choose the fastest of a kernel's timed configurations; None means to stay with the default.

    Prints and returns the configuration and its time. It must need at most 98 % of the default's
    time, unless the default has no time. key: a name for the kernel and shape, to print. results:
    (configuration, its time or why it has none) for each; the first is the default, given as None.
    """
    for config, result in results:
        if isinstance(result, Failure):
            print(f"{key}: {config or 'the default'}: {result.reason}", flush=True)
    default = results[0][1]
    timed = [(c, r) for c, r in results[1:] if c is not None and isinstance(r, Timing)]
    if not timed:
        print(f"{key}: no candidate is right", flush=True)
        return None
    config, best = min(timed, key=lambda pair: pair[1].p50)
    usual = f"{default.p50:.4f} ms" if isinstance(default, Timing) else "none"
    print(f"{key}: {best.p50:.4f} ms, by default {usual}, {config}", flush=True)
    if isinstance(default, Timing) and best.p50 > MARGIN * default.p50:
        return None
    return config, best


class TunedFile:
    """The file kernels/tuned/<GPU name>.json: the best configuration of each kernel on this GPU.

    After each change the whole file is written again. It is JSON with the fields
      surroundings     device and versions, as `kernels.bench.measure.environment` returns them
      timed            how times were measured: "graph" (replays of a CUDA graph), "events" (CUDA
                       events) or "events and graph"
      configurations   from name, such as "attention/forward/d40/qlong/k128/16", to configuration
      failed           from name to a list of {"configuration", "reason"}, those that cannot be
                       used; the configuration null stands for the default one
    Files of older versions lack `timed` (they were timed by events) and `failed`.
    """

    def __init__(self, path: Path, surroundings: dict[str, Any]) -> None:
        self.path, self.surroundings = path, surroundings
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        current = launch.current_key
        self.configurations = {current(k): v for k, v in content.get("configurations", {}).items()}
        self.failed = {current(k): v for k, v in content.get("failed", {}).items()}
        kept = content.get("timed", "events").split(" and ")
        self.timed = dict.fromkeys(self.configurations, kept)

    def set(
        self,
        key: str,
        best: tuple[Config, Timing] | None,
        failed: Sequence[tuple[Config | None, Failure]],
    ) -> None:
        """Store the tuner's result for the kernel and shapes named `key`, and write the file.

        What the file had under this name is replaced. key: such as
        "attention/forward/d40/qlong/k128/16". best: the fastest configuration and its time; None if
        the default one is to be used. failed: the configurations (None: the default one) that gave
        wrong results, crashed or did not compile, and why.
        """
        for table in (self.configurations, self.failed, self.timed):
            table.pop(key, None)
        if best:
            config, timing = best
            self.configurations[key] = config
            self.timed[key] = [timing.timed] if timing.timed else []
        if failed:
            self.failed[key] = [
                {"configuration": config, "reason": failure.reason} for config, failure in failed
            ]
        self._write()

    def _write(self) -> None:
        ways = sorted({way for ways in self.timed.values() for way in ways})
        content = {
            "surroundings": self.surroundings,
            "timed": " and ".join(ways) or "graph",
            "configurations": self.configurations,
            "failed": self.failed,
        }
        self.path.parent.mkdir(exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")  # so that it is never half written
        try:
            part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)  # it is there still where that failed


def compile_target(device: str) -> str | None:
    """Return what Triton compiles for on an NVIDIA GPU, such as "sm_90"; None elsewhere."""
    if torch.device(device).type != "cuda" or torch.version.hip:
        return None
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


def tune(
    ops: Sequence[str],
    device: str,
    dtype: torch.dtype,
    seconds: float,
    processes: int | None = None,
    mode: str | None = None,
    **changes: Any,
) -> int:
    """Find the fastest right configurations on this GPU and write kernels/tuned/<GPU name>.json.

    ops: the kernels to tune, keys of KERNELS. seconds: how long each default configuration is
    timed. processes: how many compile; by default one less than there are processors. mode: tune
    only what "forward" or "backward" uses. changes: fields of the Session to replace, for tests.
    What the file has for other shapes, dtypes and kernels is kept; it is written after each
    configuration found. Returns the exit code of `python -m kernels.bench --tune`.
    """
    session = Session(device, dtype, secrets.randbelow(2**31), seconds, compile_target(device))
    session = Session(**(session.__dict__ | changes))
    path = launch.tuned_path(torch.cuda.get_device_name(device))
    try:
        file = TunedFile(path, environment(device))
    except (OSError, ValueError, AttributeError) as error:
        print(f"{path} can't be read, so nothing is tuned: {error}", file=sys.stderr)
        return 2
    for op in ops:
        kernel = KERNELS[op]
        measured = [shape for shape in kernel.shapes if shape.measured]
        jobs: dict[str, TuningJob] = {}
        for job in load(kernel.tuning_jobs)(measured, dtype):
            if mode in (None, job.mode):
                jobs.setdefault(job.key, job)
        tasks = {key: tasks_of(session, kernel, job) for key, job in jobs.items()}
        every = [task for group in tasks.values() for task in group]
        results = measure_all(every, processes or max(1, (os.cpu_count() or 1) - 1))
        for key, group in tasks.items():
            found = [(task.config, next(results)) for task in group]
            failed = [(config, r) for config, r in found if isinstance(r, Failure)]
            try:
                file.set(key, choose(key, found), failed)
            except OSError as error:
                print(f"Cannot write {path}: {error.strerror}.", file=sys.stderr)
                return 2
    launch.clear_tuned_cache()
    print(file.path)
    print("Run `python -m kernels.check` next: launches take only what it finds right.")
    return 0
