"""Find the fastest configuration of each kernel at each shape on this GPU: `--tune`.

The results are written to kernels/tuned, where launches find them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from unittest.mock import patch

import torch

from .. import launch
from ..registry import KERNELS, TuningJob, load
from .measure import environment, time_call


def _grid(choices: dict[str, tuple[int, ...]]) -> Iterator[dict[str, int]]:
    """Yield every combination of the choices, as a dict from field to value."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def find_best(
    job: TuningJob,
    candidates: Iterable[dict[str, int]],
    use: Callable[[dict[str, int] | None], None],
    device: str,
    seconds: float,
) -> dict[str, int] | None:
    """Return the fastest configuration, or None if the default is at most 2 percent slower.

    candidates   configurations to try; one that does not compile or launch is skipped
    use          called with a configuration, or None for the default: the next call takes it
    seconds      how long the default is timed; each candidate is timed for a quarter of that
    """
    best: tuple[float, dict[str, int]] | None = None
    for config in candidates:
        use(config)
        try:
            ms = time_call(job.call, device, seconds / 4)[0]
        except Exception:  # too much shared memory, an illegal layout, a compiler error
            continue
        if best is None or ms < best[0]:
            best = ms, config
    use(None)
    if best is None:
        return None
    default = time_call(job.call, device, seconds)[0]
    print(f"{job.key}: {best[0]:.4f} ms, by default {default:.4f} ms, {best[1]}", flush=True)
    return best[1] if best[0] < 0.98 * default else None


def tune(ops: Sequence[str], device: str, dtype: torch.dtype, seconds: float) -> int:
    """Tune the kernels `ops` on this GPU and write kernels/tuned/<GPU name>.json.

    ops: names in the registry. seconds: see `find_best`. What the file has for other shapes, dtypes
    and kernels is kept. Returns the command's exit code.
    """
    path = launch.tuned_path(torch.cuda.get_device_name(device))
    table: dict[str, dict[str, int]] = {}
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))["configurations"]
        table = {launch.current_key(key): config for key, config in old.items()}
    chosen: dict[str, dict[str, int] | None] = {}
    with patch.object(launch, "load_table", lambda _: {k: v for k, v in chosen.items() if v}):
        for op in ops:
            kernel = KERNELS[op]
            measured = [shape for shape in kernel.shapes if shape.measured]
            for job in load(kernel.tuning_jobs)(measured, dtype, device):
                if job.key in chosen:
                    continue
                chosen[job.key] = None

                def use(config: dict[str, int] | None, key: str = job.key) -> None:
                    chosen[key] = config

                chosen[job.key] = find_best(job, _grid(job.choices), use, device, seconds)
    launch.clear_tuned_cache()
    configurations = {k: v for k, v in (table | chosen).items() if v}
    path.parent.mkdir(exist_ok=True)
    content = {"surroundings": environment(device), "configurations": configurations}
    part = path.with_name(path.name + ".part")  # replaced as a whole, so it is never half written
    part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)
    print(path)
    return 0
