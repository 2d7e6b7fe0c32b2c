"""How a benchmark measures: correctness first, cold cache, the median and the fifths around it.

Every provider of one op and shape is timed in the same run; one whose answer is wrong gets no time.
Ceilings are measured on the same device: a large matrix product and a large copy.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Provider:
    """One way to compute an op. `make` returns what to time, or raises with the reason it can't.

    What it returns may have a `note` that says more: which operator xformers took.
    """

    name: str
    make: Callable[..., Callable[[], torch.Tensor]]


@dataclass
class Row:
    """One measurement, as it is written to JSON. Times in milliseconds."""

    kernel: str
    provider: str
    mode: str
    shape: str
    dtype: str
    p50: float | None
    p20: float | None
    p80: float | None
    metric: str  # what `rate` counts: "TFLOP/s" or "GB/s"
    rate: float | None
    ceiling: float | None  # of this device, in the metric
    note: str = ""
    surroundings: dict = field(default_factory=dict)

    @property
    def share(self) -> float | None:
        """The part of the device's measured ceiling that was reached."""
        return None if not self.rate or not self.ceiling else self.rate / self.ceiling

    def as_dict(self) -> dict:
        return asdict(self)


@lru_cache
def surroundings(device: str) -> dict:
    """Card or processor, driver and versions."""
    out = {"torch": torch.__version__, "python": platform.python_version()}
    try:
        import triton

        out["triton"] = triton.__version__
    except ImportError:
        out["triton"] = None
    if torch.device(device).type == "cuda":
        out["gpu"] = torch.cuda.get_device_name(device)
        out["driver"] = _driver()
        out["cuda"] = torch.version.cuda or torch.version.hip
    else:
        out["cpu"] = _processor()
        out["threads"] = torch.get_num_threads()
    return out


def _driver() -> str | None:
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
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(x.split(":", 1)[1].strip() for x in file if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def time_call(
    call: Callable[[], object], device: str, seconds: float
) -> tuple[float, float, float]:
    """Milliseconds a call: median, 20th and 80th percentile, over about `seconds` of repeats.

    On a GPU the L2 cache is cleared before each call (triton.testing.do_bench).
    """
    if torch.device(device).type == "cuda":
        from triton.testing import do_bench

        rep = max(50, int(1000 * seconds))
        p50, p20, p80 = do_bench(call, warmup=25, rep=rep, quantiles=[0.5, 0.2, 0.8])
        return p50, p20, p80
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 1000):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    fifths = statistics.quantiles(times, n=5)
    return statistics.median(times), fifths[0], fifths[-1]


@lru_cache
def ceiling(metric: str, device: str, dtype: torch.dtype) -> float:
    """What this device reached here and now: a matrix product, TFLOP/s, or a copy, GB/s."""
    fast = torch.device(device).type == "cuda"
    if metric == "TFLOP/s":
        n = 8192 if fast else 1024
        a = torch.randn(n, n, device=device, dtype=dtype)
        ms = time_call(lambda: a @ a, device, 0.5)[0]
        return 2 * n**3 / ms / 1e9
    n = (1 << 29) if fast else (1 << 25)
    a = torch.empty(n, device=device, dtype=torch.uint8)
    b = torch.empty_like(a)
    ms = time_call(lambda: b.copy_(a), device, 0.5)[0]
    return 2 * n / ms / 1e6


def worst(found, exact) -> float:
    """Largest error of any output relative to the largest value of the exact one."""
    pairs = zip(found, exact, strict=True) if isinstance(exact, tuple) else [(found, exact)]
    return max(
        ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-6)).item()
        for a, b in pairs
    )


TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}


def compare(
    kernel: str,
    mode: str,
    shape: str,
    dtype: torch.dtype,
    providers: list[Provider],
    inputs: tuple,
    exact,
    amount: float,
    metric: str,
    device: str,
    seconds: float,
) -> Iterator[Row]:
    """Time every provider on `inputs`. `amount`: FLOP or bytes of a call; `exact`: the answer."""
    top = ceiling(metric, device, dtype)
    for provider in providers:
        row = Row(
            kernel, provider.name, mode, shape, str(dtype).removeprefix("torch."),
            None, None, None, metric, None, top, surroundings=surroundings(device),
        )  # fmt: skip
        try:
            call = provider.make(*inputs)
            error = worst(call(), exact)
            if not error <= TOLERANCE[dtype]:
                row.note = f"wrong answer: off by {error:.1e}"
            else:
                row.p50, row.p20, row.p80 = time_call(call, device, seconds)
                scale = 1e9 if metric == "TFLOP/s" else 1e6
                row.rate = amount / row.p50 / scale
                row.note = getattr(call, "note", "")
        except Exception as reason:  # a peer that can't run here says why in its own words
            first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
            row.note = f"not here: {first[:120]}"
        yield row
