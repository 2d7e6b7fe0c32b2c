"""Find the fastest configuration of each kernel at each shape on this GPU, for kernels/tuned."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from unittest.mock import patch

import torch

from .. import launch
from ..registry import KERNELS, TuningJob, load
from .measure import environment, time_call


def _grid(choices: dict[str, tuple]) -> Iterator[dict]:
    """Yield every combination of the choices."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def find_best(
    job: TuningJob,
    candidates: Iterable[dict],
    use: Callable[[dict | None], None],
    device: str,
    seconds: float,
) -> dict | None:
    """Return the fastest of `candidates`, None where the heuristic's is at most 2 percent slower.

    `use` makes the next call take a configuration, None the heuristic's. A candidate that does not
    compile or launch is passed over.
    """
    best: tuple[float, dict] | None = None
    for config in candidates:
        use(config)
        try:
            ms = time_call(job.call, device, seconds / 4)[0]
        except Exception:  # too much shared memory, an illegal layout, a compiler's fault
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
    """Write kernels/tuned/<GPU>.json; keys that are not tuned now keep their configuration.

    ops: names of the registry. Returns the command's exit code.
    """
    path = launch.tuned_path(torch.cuda.get_device_name(device))
    table: dict[str, dict] = {}
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))["configurations"]
        table = {launch.current_key(key): config for key, config in old.items()}
    chosen: dict[str, dict | None] = {}
    with patch.object(launch, "load_table", lambda _: {k: v for k, v in chosen.items() if v}):
        for op in ops:
            kernel = KERNELS[op]
            measured = [shape for shape in kernel.shapes if shape.measured]
            for job in load(kernel.tuning_jobs)(measured, dtype, device):
                if job.key in chosen:
                    continue
                chosen[job.key] = None

                def use(config: dict | None, key: str = job.key) -> None:
                    chosen[key] = config

                chosen[job.key] = find_best(job, _grid(job.choices), use, device, seconds)
    launch.clear_tuned_cache()
    found = {k: v for k, v in (table | chosen).items() if v}
    path.parent.mkdir(exist_ok=True)
    content = {"surroundings": environment(device), "configurations": found}
    part = path.with_name(path.name + ".part")  # a file cut short would be worse than none
    part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)
    print(path)
    return 0
