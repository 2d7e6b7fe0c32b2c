"""What the word maps cost: word attention beside attention without maps, and the plain way."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from . import attention as plain
from .measure import Provider, Row, compare

SHAPES = [s for s in plain.SHAPES if s[3] == 77]
MODES = ("forward",)


def _ours(q, k, v):
    from ..word_attention import word_attention

    plain.refuse(q.device)
    return word_attention(q, k, v)


def _reference(q, k, v):
    from ..word_attention import reference

    return reference(q, k, v)


RUNS = {"ours, with maps": _ours, "plain, with maps": _reference}


def _make(run):
    return lambda q, k, v: lambda: run(q, k, v)


def rows(device: str, dtype: torch.dtype, modes=MODES, seconds: float = 0.2) -> Iterator[Row]:
    for name, b, tq, tk, h, d in SHAPES:
        if torch.device(device).type == "cpu" and b > 2:
            continue
        g = torch.Generator(device).manual_seed(0)
        q, k, v = (
            torch.randn(b, t, h, d, generator=g, device=device, dtype=dtype) for t in (tq, tk, tk)
        )
        exact = _reference(q.float(), k.float(), v.float())
        shape = f"{name} B{b} {tq}x{tk} H{h} D{d}"
        work = plain.work_of(q, k, "forward")
        with_maps = [Provider(n, _make(run)) for n, run in RUNS.items()]
        args = (q, k, v), exact, work, device, seconds
        yield from compare("word_attention", "forward", shape, dtype, with_maps, *args)
        without = [Provider(f"{n}, no maps", _make(plain.RUNS[n])) for n in ("ours", "sdpa")]
        args = (q, k, v), exact[0], work, device, seconds
        yield from compare("word_attention", "forward", shape, dtype, without, *args)
