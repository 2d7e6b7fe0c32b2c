"""Check each result, then time it with a cold cache: median, 20th and 80th percentile.

Every provider of one op and shape is timed in the same run; one whose result is wrong gets no time.
Ceilings are measured on the same device: a large matrix product and a large copy.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch


@dataclass(frozen=True)
class Call:
    """What to time; note: a remark for the table, such as which operator xformers takes."""

    run: Callable[[], Any]
    note: str = ""


@dataclass(frozen=True)
class Provider:
    """One way to compute an op; `make(*inputs)` returns the call, or raises where it can't run."""

    name: str
    make: Callable[..., Call]


@dataclass(frozen=True)
class Work:
    """The work of one call: floating point operations and the bytes it must at least move.

    metric: the unit of its rate, "TFLOP/s" or "GB/s".
    """

    flop: float
    bytes: float
    metric: str

    def rate(self, milliseconds: float) -> float:
        """Return the rate in units of `metric` for a call of that length."""
        if self.metric == "TFLOP/s":
            return self.flop / milliseconds / 1e9
        return self.bytes / milliseconds / 1e6


@dataclass
class Row:
    """One measurement, as it is written to JSON. Times in milliseconds, None where there is none.

    ceilings: rates of a matrix product (TFLOP/s) and a copy (GB/s) on this device; share: `rate`
    divided by the ceiling of its metric.
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

    def as_dict(self) -> dict:
        """Return the row for JSON, with measurements rounded to four digits."""
        out = asdict(self)
        for key in ("p50", "p20", "p80", "rate", "share"):
            if out[key]:
                out[key] = float(f"{out[key]:.4g}")
        out["ceilings"] = {k: float(f"{v:.4g}") for k, v in self.ceilings.items()}
        return out


@lru_cache
def environment(device: str) -> dict[str, Any]:
    """Return GPU or processor, driver and versions: the last fields of a row."""
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
    """Return the GPU or processor of a row or an `environment`."""
    return row.get("gpu") or f"{row.get('cpu')} ({row.get('threads')} threads)"


def describe_environment(row: Mapping[str, Any]) -> str:
    """Return device, driver and versions of a row or an `environment` in one line."""
    driver = f", driver {row['driver']}" if row.get("driver") else ""
    versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items() if v)
    return f"{device_name(row)}{driver}, {versions}"


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, None where it is not found."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.splitlines()[0].strip()


def _processor() -> str:
    """Return the name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(x.split(":", 1)[1].strip() for x in file if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def time_call(
    call: Callable[[], object], device: str, seconds: float
) -> tuple[float, float, float]:
    """Return milliseconds a call: median, 20th and 80th percentile, over `seconds` of repeats.

    On a GPU the L2 cache is cleared before each call (triton.testing.do_bench).
    """
    if torch.device(device).type == "cuda":
        from triton.testing import do_bench

        rep = max(50, int(1000 * seconds))
        p50, p20, p80 = do_bench(call, warmup=25, rep=rep, quantiles=[0.5, 0.2, 0.8])
        return p50, p20, p80
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 1000):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    fifths = statistics.quantiles(times, n=5)
    return statistics.median(times), fifths[0], fifths[-1]


@lru_cache
def ceilings(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Return the best rates of matrix products and copies of three sizes on this device."""
    fast = torch.device(device).type == "cuda"

    def best(jobs: Iterable[tuple[Work, Callable[[], object]]]) -> float:
        return max(w.rate(time_call(call, device, 0.3)[1]) for w, call in jobs)

    def products() -> Iterator[tuple[Work, Callable[[], object]]]:
        for n in (2048, 4096, 8192) if fast else (512, 1024, 2048):
            a = torch.randn(n, n, device=device, dtype=dtype)
            yield Work(2 * n**3, 0, "TFLOP/s"), partial(torch.matmul, a, a)

    def copies() -> Iterator[tuple[Work, Callable[[], object]]]:
        for n in (1 << 27, 1 << 28, 1 << 29) if fast else (1 << 25, 1 << 26, 1 << 27):
            a = torch.empty(n, device=device, dtype=torch.uint8)
            b = torch.empty_like(a)
            yield Work(0, 2 * n, "GB/s"), partial(b.copy_, a)

    return {"TFLOP/s": best(products()), "GB/s": best(copies())}


def relative_error(found: Any, exact: Any) -> float:
    """Return the largest error of any output, relative to the largest value of the exact one.

    Both are a tensor or a tuple of tensors. NaN where any error is.
    """
    pairs = zip(found, exact, strict=True) if isinstance(exact, tuple) else [(found, exact)]
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
    """Yield a row for each provider, timed on `inputs`; exact: the right result."""
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
                row.p50, row.p20, row.p80 = time_call(call.run, device, seconds)
                row.rate = work.rate(row.p50)
                row.share = row.rate / tops[work.metric]
                row.note = call.note
        except Exception as reason:  # peers that can't run here raise errors of many types
            row.note = f"not here: {first_sentence(reason)}"
        yield row


def first_sentence(error: Exception) -> str:
    """Return the first sentence of an exception's message, at most 200 characters."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
    return text if len(text) <= 200 else text[:197] + "..."


def compile_for_shapes(function: Callable) -> Callable:
    """Return `function` compiled by torch.compile for the shapes of its first call.

    Without the reset, torch.compile would leave the ninth shape uncompiled without a word.
    """
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)
