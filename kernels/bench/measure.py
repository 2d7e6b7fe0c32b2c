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


@dataclass(frozen=True)
class Work:
    """What one call has to do: floating point operations, bytes it must move at least, and which
    of the two its speed is told in, "TFLOP/s" or "GB/s"."""

    flop: float
    bytes: float
    metric: str

    def rate(self, milliseconds: float) -> float:
        if self.metric == "TFLOP/s":
            return self.flop / milliseconds / 1e9
        return self.bytes / milliseconds / 1e6


@dataclass
class Row:
    """One measurement, as it is written to JSON. Times in milliseconds, None where there is none.

    ceilings: what a matrix product and a copy reached on this device, TFLOP/s and GB/s; share: the
    part of that ceiling which `rate` is.
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
        """For JSON, with four digits of what was measured."""
        out = asdict(self)
        for key in ("p50", "p20", "p80", "rate", "share"):
            if out[key]:
                out[key] = float(f"{out[key]:.4g}")
        out["ceilings"] = {k: float(f"{v:.4g}") for k, v in self.ceilings.items()}
        return out


@lru_cache
def surroundings(device: str) -> dict:
    """Card or processor, driver and versions: the last fields of a row."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version(), "torch": torch.__version__}
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


def place(around: dict) -> str:
    """The card or processor."""
    return around.get("gpu") or f"{around.get('cpu')} ({around.get('threads')} threads)"


def where(around: dict) -> str:
    """The surroundings in one line."""
    driver = f", driver {around['driver']}" if around.get("driver") else ""
    versions = ", ".join(f"{k} {v}" for k, v in around["versions"].items() if v)
    return f"{place(around)}{driver}, {versions}"


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
def ceilings(device: str, dtype: torch.dtype) -> dict[str, float]:
    """What this device reached here and now at best: matrix products and copies of three sizes."""
    fast = torch.device(device).type == "cuda"

    def best(amounts) -> float:
        return max(w.rate(time_call(call, device, 0.3)[1]) for w, call in amounts)

    def products():
        for n in (2048, 4096, 8192) if fast else (512, 1024, 2048):
            a = torch.randn(n, n, device=device, dtype=dtype)
            yield Work(2 * n**3, 0, "TFLOP/s"), lambda a=a: a @ a

    def copies():
        for n in (1 << 27, 1 << 28, 1 << 29) if fast else (1 << 25, 1 << 26, 1 << 27):
            a = torch.empty(n, device=device, dtype=torch.uint8)
            b = torch.empty_like(a)
            yield Work(0, 2 * n, "GB/s"), lambda a=a, b=b: b.copy_(a)

    return {"TFLOP/s": best(products()), "GB/s": best(copies())}


def worst(found, exact) -> float:
    """Largest error of any output relative to the largest value of the exact one."""
    pairs = zip(found, exact, strict=True) if isinstance(exact, tuple) else [(found, exact)]
    errors = [
        (a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-6)
        for a, b in pairs
    ]
    return torch.stack(errors).max().item()  # NaN, where any is


TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}


def compare(
    kernel: str,
    mode: str,
    shape: str,
    dtype: torch.dtype,
    providers: list[Provider],
    inputs: tuple,
    exact,
    work: Work,
    device: str,
    seconds: float,
) -> Iterator[Row]:
    """Time every provider on `inputs`; `exact` is the answer, `work` what a call has to do."""
    tops = ceilings(device, dtype)
    for provider in providers:
        row = Row(
            kernel, provider.name, mode, shape, str(dtype).removeprefix("torch."),
            work.metric, work.flop, work.bytes, tops, **surroundings(device),
        )  # fmt: skip
        try:
            call = provider.make(*inputs)
            error = worst(call(), exact)
            if not error <= TOLERANCE[dtype]:
                row.note = f"wrong answer: off by {error:.1e}"
            else:
                row.p50, row.p20, row.p80 = time_call(call, device, seconds)
                row.rate = work.rate(row.p50)
                row.share = row.rate / tops[work.metric]
                row.note = getattr(call, "note", "")
        except Exception as reason:  # a peer that can't run here says why in its own words
            row.note = f"not here: {first_sentence(reason)}"
        yield row


def first_sentence(error: Exception) -> str:
    """What an exception says, without the essay that may follow."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
    return text if len(text) <= 200 else text[:197] + "..."


def compiled(function: Callable) -> Callable:
    """`function` by torch.compile for just these shapes. Without a reset the ninth shape would
    silently run uncompiled."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)
