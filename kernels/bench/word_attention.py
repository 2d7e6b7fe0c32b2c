"""Time word attention against plain PyTorch with maps, and against attention without maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from .. import shapes
from ..attention.cases import make_inputs
from ..word_attention import reference, word_attention
from . import attention as plain
from .measure import Call, Provider, Row, compare

SHAPES = [shape for shape in shapes.WORD_ATTENTION if shape.measured]


def _ours(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    plain.require_gpu(q.device)
    return word_attention(q, k, v)


RUNS: dict[str, Callable[..., object]] = {
    "ours, with maps": _ours,
    "plain, with maps": reference,
}


def _provider(name: str, run: Callable[..., object]) -> Provider:
    return Provider(name, lambda q, k, v: Call(lambda: run(q, k, v)))


def rows(
    device: str, dtype: torch.dtype, modes: Sequence[str], seconds: float = 0.2
) -> Iterator[Row]:
    """Time attention that returns maps of words: ours, plain PyTorch's, and attention without maps.

    Yields one Row of the benchmark's table for each implementation and shape, forward only. modes:
    nothing is yielded if "forward" is not among them. seconds: how long each one is repeated. On a
    CPU only batches up to 2 are timed.
    """
    if "forward" not in modes:
        return
    for shape in SHAPES:
        if torch.device(device).type == "cpu" and shape.batch > 2:
            continue
        (inputs,) = make_inputs(shape, dtype, device)
        q, k, v = inputs.values()
        exact = reference(q.float(), k.float(), v.float())
        work = plain.work_of(q, k, "forward")
        with_maps = [_provider(name, run) for name, run in RUNS.items()]
        where = "word_attention", "forward", shape.full_title, dtype
        yield from compare(*where, with_maps, (q, k, v), exact, work, device, seconds)
        without = [
            _provider(f"{name}, no maps", run)
            for name in ("ours", "sdpa", "sdpa cudnn")
            if (run := plain.RUNS[name])
        ]
        yield from compare(*where, without, (q, k, v), exact[0], work, device, seconds)
