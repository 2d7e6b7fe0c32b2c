"""Check the result of each implementation, then time it: median, 20th and 80th percentile.

All implementations of one op and shape are timed in the same run, on a GPU with a cold L2 cache and
by replaying a CUDA graph, so that the host's time per call does not count; see `time_call`. One
whose result is wrong gets no time. Ceilings, the most that the device can reach, are measured too:
the rates of large matrix products and large copies.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch


@dataclass(frozen=True)
class Call:
    """A function to time, without arguments, and a remark to show beside its time.

    The remark says, for example, which operator xformers chose.
    """

    run: Callable[[], Any]
    note: str = ""


@dataclass(frozen=True)
class Provider:
    """One implementation of an op to be timed, such as "ours" or "xformers".

    `make(*inputs)`, with the tensors of a shape, returns the Call to time. It, or the call, raises
    an exception if the implementation can't run here.
    """

    name: str
    make: Callable[..., Call]


@dataclass(frozen=True)
class Work:
    """How much one call of a kernel has to compute and to move, to convert its time into a rate.

    flop: floating-point operations. bytes: the fewest bytes that must be read and written. metric:
    the unit of the rate, "TFLOP/s" or "GB/s".
    """

    flop: float
    bytes: float
    metric: str

    def rate(self, milliseconds: float) -> float:
        """Return how fast the call is, in TFLOP/s or GB/s (see `metric`), if it takes this long."""
        if self.metric == "TFLOP/s":
            return self.flop / milliseconds / 1e9
        return self.bytes / milliseconds / 1e6


@dataclass
class Row:
    """One measurement: an implementation of an op at one shape; written to JSON as it is.

    kernel               name of the op, a key of KERNELS, such as "attention"
    provider             name of the implementation, such as "ours" or "sdpa flash"
    mode                 "forward" or "backward"
    metric               unit of `rate`: "TFLOP/s" or "GB/s"
    flop, bytes          floating-point operations and bytes of one call
    ceilings             the device's best rates by unit, measured by `ceilings`
    p50, p20, p80        median, 20th and 80th percentile in milliseconds; None without a time
    share                rate / ceilings[metric], so 0 to about 1
    note                 a remark, or why there is no time
    gpu, capability, driver   name, compute capability and driver of a GPU
    cpu, threads         name of the processor and PyTorch's threads, if it is no GPU
    versions             of python, torch, triton, xformers and cuda; None: not installed
    timed                "graph" (replays of a CUDA graph), "events" or None (a CPU's clock);
                         files of older versions do not have it
    """

    kernel: str
    provider: str
    mode: str
    shape: str
    dtype: str
    metric: str
    flop: float
    bytes: float
    ceilings: dict[str, float]
    p50: float | None = None
    p20: float | None = None
    p80: float | None = None
    rate: float | None = None
    share: float | None = None
    note: str = ""
    gpu: str | None = None
    capability: list[int] | None = None
    driver: str | None = None
    cpu: str | None = None
    threads: int | None = None
    versions: dict[str, str | None] = field(default_factory=dict)
    timed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a dict to write as JSON, with measurements rounded to four digits."""
        out = asdict(self)
        for key in ("p50", "p20", "p80", "rate", "share"):
            if out[key]:
                out[key] = float(f"{out[key]:.4g}")
        out["ceilings"] = {k: float(f"{v:.4g}") for k, v in self.ceilings.items()}
        return out


@lru_cache
def environment(device: str) -> dict[str, Any]:
    """Return device and versions of a measurement, as keyword arguments of a Row; cached.

    gpu, capability, driver   name, compute capability and driver version of a CUDA device
    cpu, threads              name of the processor and PyTorch's threads, if it is not CUDA
    versions                  of python, torch, triton, xformers and cuda; None: not installed
    """
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for name in ("triton", "xformers"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    if torch.device(device).type != "cuda":
        return {"cpu": _processor(), "threads": torch.get_num_threads(), "versions": versions}
    versions["cuda"] = torch.version.cuda or torch.version.hip
    return {
        "gpu": torch.cuda.get_device_name(device),
        "capability": list(torch.cuda.get_device_capability(device)),
        "driver": _driver(),
        "versions": versions,
    }


def device_name(row: Mapping[str, Any]) -> str:
    """Return the name of the GPU, or the CPU's name and threads, of a measurement, to show it.

    row: a measurement (a Row) as a dict, or the result of `environment`.
    """
    return row.get("gpu") or f"{row.get('cpu')} ({row.get('threads')} threads)"


def describe_environment(row: Mapping[str, Any]) -> str:
    """Return device, driver and versions of a measurement in one line, for a heading.

    row: a measurement (a Row) as a dict, or the result of `environment`.
    """
    driver = f", driver {row['driver']}" if row.get("driver") else ""
    versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items() if v)
    return f"{device_name(row)}{driver}, {versions}"


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, or None if nvidia-smi does not tell it."""
    try:
        output = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return output.stdout.splitlines()[0].strip()


def _processor() -> str:
    """Return the model name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(x.split(":", 1)[1].strip() for x in file if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Timing(NamedTuple):
    """The median, 20th and 80th percentile of a call's time, in milliseconds, and how it was timed.

    timed   "graph": by replays of a CUDA graph; "events": by CUDA events around each call, which
            give the CPU's time for launching where that is longer than the GPU's work; None: by the
            clock of a CPU
    """

    p50: float
    p20: float
    p80: float
    timed: str | None = None


def select_device(device: str) -> None:
    """Make a CUDA device current, with a stream that a CUDA graph can capture.

    PyTorch runs a backward pass on the stream of its forward pass, and the default stream cannot be
    captured: call this before the inputs of what is to be timed are made. Nothing is done for other
    devices.
    """
    chosen = torch.device(device)
    if chosen.type == "cuda":
        if chosen.index is not None:
            torch.cuda.set_device(chosen.index)
        if torch.cuda.current_stream() == torch.cuda.default_stream():
            torch.cuda.set_stream(torch.cuda.Stream())


def time_call(call: Callable[[], object], device: str, seconds: float) -> Timing:
    """Time `call`, again and again for `seconds`; return median and percentiles in milliseconds.

    On a GPU a CUDA graph with many calls is replayed, each call after the L2 cache has been
    overwritten. A second graph only overwrites the cache as often. Replays of both alternate, and
    the difference of their times, divided by the number of calls, is one sample: neither the host
    nor the overwriting counts, the gap between two kernels does. A call that cannot be captured is
    timed by events around it, after the L2 cache has been overwritten (triton.testing.do_bench).
    """
    if torch.device(device).type == "cuda":
        samples = _replay(call, device, seconds)
        if samples is not None:
            return Timing(*_percentiles(samples), "graph")
        from triton.testing import do_bench

        rep = max(50, int(1000 * seconds))
        p50, p20, p80 = do_bench(call, warmup=25, rep=rep, quantiles=[0.5, 0.2, 0.8])
        return Timing(p50, p20, p80, "events")
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 1000):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return Timing(*_percentiles(times))


def _percentiles(times: list[float]) -> tuple[float, float, float]:
    """Return the median, 20th and 80th percentile of the times."""
    fifths = statistics.quantiles(times, n=5)
    return statistics.median(times), fifths[0], fifths[-1]


REPLAY_MS = 2.0  # that one replay should take, so that events measure it well
MAX_CALLS = 100  # in a graph
LEAST_MS = 1e-5  # of a sample: noise must not make a time negative
LEAST_CACHE = 64 << 20  # bytes that are overwritten to clear the L2 cache, if it is not larger


def _replay(call: Callable[[], object], device: str, seconds: float) -> list[float] | None:
    """Time a call by replaying a CUDA graph; return samples in ms, None if it can't be captured.

    A sample is the difference between two graphs, one with the call and one without, divided by the
    number of calls in it; `seconds` is about how long all take. It runs on the current stream of
    the device, which must be the current one, or on a new stream if that is the default one.
    """
    for _ in range(3):  # compiles, tunes and allocates what a capture must not
        call()
    torch.cuda.synchronize()
    size = max(2 * torch.cuda.get_device_properties(device).L2_cache_size, LEAST_CACHE)
    cache = torch.empty(size, dtype=torch.uint8, device=device)
    try:
        one = _capture([cache.zero_, call])
    except RuntimeError:  # it asks the GPU for a value, or its library cannot be captured
        torch.cuda.synchronize()
        return None
    (estimate,) = _elapsed([one] * 2)[1:]
    n = max(1, min(MAX_CALLS, int(REPLAY_MS / estimate)))
    full, empty = _capture([cache.zero_, call] * n), _capture([cache.zero_] * n)
    _elapsed([full, empty])
    rounds = max(10, min(1000, int(1000 * seconds / (2 * n * estimate))))
    times = _elapsed([full, empty] * rounds)
    pairs = zip(times[::2], times[1::2], strict=True)
    return [max(with_call - without, LEAST_MS * n) / n for with_call, without in pairs]


def _capture(functions: list[Callable[[], object]]) -> torch.cuda.CUDAGraph:
    """Return a CUDA graph of the functions, called one after another, to be replayed for timing."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.current_stream()
    if stream == torch.cuda.default_stream():
        stream = torch.cuda.Stream()
    # The outer context restores the current stream even if the capture fails.
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
        for function in functions:
            function()
    return graph


def _elapsed(graphs: list[torch.cuda.CUDAGraph]) -> list[float]:
    """Replay the graphs one after another; return the milliseconds that each took."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(graphs) + 1)]
    events[0].record()
    for graph, event in zip(graphs, events[1:], strict=True):
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in pairwise(events)]


@lru_cache
def ceilings(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Return the best rates measured on the device: {"TFLOP/s": ..., "GB/s": ...}; cached.

    Rates of kernels are compared with them. "TFLOP/s" is that of matrix products in `dtype`, "GB/s"
    that of copies, each the best of three sizes.
    """
    on_gpu = torch.device(device).type == "cuda"

    def best(jobs: Iterable[tuple[Work, Callable[[], object]]]) -> float:
        return max(w.rate(time_call(call, device, 0.3)[1]) for w, call in jobs)

    def products() -> Iterator[tuple[Work, Callable[[], object]]]:
        for n in (2048, 4096, 8192) if on_gpu else (512, 1024, 2048):
            a = torch.randn(n, n, device=device, dtype=dtype)
            yield Work(2 * n**3, 0, "TFLOP/s"), partial(torch.matmul, a, a)

    def copies() -> Iterator[tuple[Work, Callable[[], object]]]:
        for n in (1 << 27, 1 << 28, 1 << 29) if on_gpu else (1 << 25, 1 << 26, 1 << 27):
            a = torch.empty(n, device=device, dtype=torch.uint8)
            b = torch.empty_like(a)
            yield Work(0, 2 * n, "GB/s"), partial(b.copy_, a)

    return {"TFLOP/s": best(products()), "GB/s": best(copies())}


def relative_error(result: Any, exact: Any) -> float:
    """Return the largest error of any output, divided by the largest absolute value of that output.

    result is what is checked, exact the right values: both a tensor or both a tuple of tensors. NaN
    if any value is NaN.
    """
    pairs = zip(result, exact, strict=True) if isinstance(exact, tuple) else [(result, exact)]
    errors = [
        (a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-6)
        for a, b in pairs
    ]
    return torch.stack(errors).max().item()


TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}


def compare(
    kernel: str,
    mode: str,
    shape: str,
    dtype: torch.dtype,
    providers: list[Provider],
    inputs: tuple,
    exact: torch.Tensor | tuple[torch.Tensor, ...],
    work: Work,
    device: str,
    seconds: float,
) -> Iterator[Row]:
    """Check and time several implementations of an op on the same inputs; yield one Row for each.

      kernel, mode, shape, dtype   for the rows; shape is a title, mode "forward" or "backward"
      providers                    the implementations
      inputs                       what each provider's `make` takes
      exact                        the right result, to which results are compared
      work                         operations and bytes of one call
      seconds                      how long each call is repeated
    A provider that is wrong or raises an exception gets a row with a note and without a time.
    """
    tops = ceilings(device, dtype)
    for provider in providers:
        row = Row(
            kernel, provider.name, mode, shape, str(dtype).removeprefix("torch."),
            work.metric, work.flop, work.bytes, tops, **environment(device),
        )  # fmt: skip
        try:
            call = provider.make(*inputs)
            error = relative_error(call.run(), exact)
            if not error <= TOLERANCE[dtype]:
                row.note = f"wrong answer: off by {error:.1e}"
            else:
                row.p50, row.p20, row.p80, row.timed = time_call(call.run, device, seconds)
                row.rate = work.rate(row.p50)
                row.share = row.rate / tops[work.metric]
                row.note = call.note
        except Exception as reason:  # peers that can't run here raise errors of many types
            row.note = f"not here: {first_sentence(reason)}"
        yield row


def first_sentence(error: Exception) -> str:
    """Return the first sentence of an exception's message, at most 200 characters, for a table.

    A first line that ends with a colon is joined with the next one: "backend='inductor' raised:
    RuntimeError: no compiler". If the message is empty, return the name of the exception's type.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    text = text.split(". ")[0]
    return text if len(text) <= 200 else text[:197] + "..."


def compile_for_shapes(function: Callable) -> Callable:
    """Return `function` compiled by torch.compile for the shapes of its first call, to be timed.

    Earlier compilations are dropped: after eight shapes torch.compile would no longer compile,
    without a warning. Its backward pass may run more than once.
    """
    import torch._functorch.config

    torch.compiler.reset()
    torch._functorch.config.donated_buffer = False  # else a backward pass can't be repeated
    return torch.compile(function, dynamic=False)
