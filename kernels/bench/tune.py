"""Finds the fastest configuration of each kernel at each shape on this GPU and writes it down."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import torch

from .. import attention, group_norm, launch, word_attention
from . import attention as attention_bench
from . import group_norm as group_norm_bench
from .measure import surroundings, time_call


def _grid(**choices) -> Iterator[dict]:
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


BLOCKS = {
    "forward": {"M": (64, 128), "N": (32, 64, 128), "num_warps": (4, 8), "num_stages": (2, 3, 4)},
    "dkv": {"M": (16, 32, 64), "N": (32, 64, 128), "num_warps": (4, 8), "num_stages": (1, 2, 3)},
    "dq": {"M": (32, 64, 128), "N": (16, 32, 64), "num_warps": (4, 8), "num_stages": (1, 2, 3)},
}
WORDS = {"M": (16, 32, 64), "SPLIT": (True, False), "num_warps": (4, 8), "num_stages": (1, 2)}


def _best(name: str, candidates, use, call, device: str, seconds: float) -> dict | None:
    """The fastest of `candidates`; one that does not compile or launch is passed over."""
    best = None
    for config in candidates:
        use(config)
        try:
            ms = time_call(call, device, seconds / 4)[0]
        except Exception:  # too much shared memory, an illegal layout, a compiler's fault
            continue
        if best is None or ms < best[0]:
            best = ms, config
    use(None)
    if best is None:
        return None
    default = time_call(call, device, seconds)[0]
    print(f"{name}: {best[0]:.4f} ms, by default {default:.4f} ms, {best[1]}", flush=True)
    return best[1] if best[0] < 0.98 * default else None


def tune(ops, device: str, dtype: torch.dtype, seconds: float) -> int:
    """Write kernels/tuned/<GPU>.json; what was tuned before and is not tuned now stays."""
    name = torch.cuda.get_device_name(device)
    path = launch.tuned_path(name)
    table = {}
    if path.exists():
        table = json.loads(path.read_text(encoding="utf-8"))["configurations"]
        table = {launch.current_key(k): v for k, v in table.items()}
    chosen: dict[str, dict | None] = {}
    original = launch.load_table
    launch.load_table = lambda _: {k: v for k, v in chosen.items() if v}
    try:
        for key, candidates, call in _work(ops, device, dtype):
            if key not in chosen:
                chosen[key] = None

                def use(config, key=key):
                    chosen[key] = config

                found = _best(key, candidates, use, call, device, seconds)
                chosen[key] = found
    finally:
        launch.load_table = original
        launch.clear_tuned_cache()
    table = {k: v for k, v in (table | chosen).items() if v}
    path.parent.mkdir(exist_ok=True)
    content = {"surroundings": surroundings(device), "configurations": table}
    part = path.with_name(path.name + ".part")  # a file cut short would be worse than none
    part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)
    print(path)
    return 0


def _work(ops, device: str, dtype: torch.dtype):
    """(key, candidates, what to time) for each kernel at each shape."""
    for _, b, tq, tk, h, d in attention_bench.SHAPES:
        q, k, v = (torch.randn(b, t, h, d, device=device, dtype=dtype) for t in (tq, tk, tk))
        if "attention" in ops:
            o, lse = attention.attention_op(q, k, v)
            calls = {
                "forward": lambda q=q, k=k, v=v: attention.attention_op(q, k, v),
                "dkv": lambda a=(q, k, v, o, lse, o): attention.attention_backward_op(*a),
                "dq": lambda a=(q, k, v, o, lse, o): attention.attention_backward_op(*a),
            }
            for kind, call in calls.items():
                yield attention.tiling.key(kind, d, tq, tk, dtype), _grid(**BLOCKS[kind]), call
        if "word_attention" in ops and tk == 77:
            call = lambda q=q, k=k, v=v: word_attention.word_attention_op(q, k, v)  # noqa: E731
            yield word_attention.key(d, tq, tk, dtype), _grid(**WORDS), call
    if "group_norm" not in ops:
        return
    shapes = {(n, c, side) for _, n, norms in group_norm_bench.SHAPES for c, side, *_ in norms}
    for n, c, side in sorted(shapes):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(n, c, side, side, device=device, dtype=dtype)
            x = x.to(memory_format=layout)
            key = group_norm.tiling.key(group_norm.tiling.Plan.of(x, group_norm_bench.GROUPS))
            call = lambda x=x: group_norm.group_norm(x, group_norm_bench.GROUPS, silu=True)  # noqa: E731
            yield key, _grid(one_launch=(True, False)), call
