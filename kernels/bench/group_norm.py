"""Time GroupNorm + SiLU at the sizes of Stable Diffusion's UNets and autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .. import shapes
from ..group_norm import group_norm, reference
from ..group_norm.cases import make_inputs
from .attention import require_gpu
from .measure import Call, Provider, Row, Work, compare, compile_for_shapes

SHAPES = [shape for shape in shapes.GROUP_NORM if shape.measured]
FLOP = 12  # operations per value: add the shift, statistics, normalize, scale, SiLU


def _ours(x: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
    require_gpu(x.device)
    return group_norm(x, *args, **named)


RUNS: dict[str, Callable[..., torch.Tensor] | None] = {
    "ours": _ours,
    "torch eager": reference,
    "torch.compile": None,  # the reference, compiled anew for each shape
}


def _run_all(run: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, ...]]:
    """Return a function that computes several GroupNorm layers, timed as one call.

    It takes a list with the keyword arguments of each layer, calls `run` with each and returns a
    tuple of the results.
    """
    return lambda norms: tuple([run(**norm) for norm in norms])


def provider(name: str, mode: str) -> Provider:
    """Return an implementation of GroupNorm for the benchmark: its name and how to call it.

    name: a key of RUNS, such as "ours" or "torch eager". mode: "forward" or "backward", what is
    timed. The Provider's `make` takes a list with the keyword arguments of each layer and a list
    with the gradient of each layer's output.
    """

    def make(norms: list[dict[str, Any]], gradients: list[torch.Tensor]) -> Call:
        one = RUNS[name]
        run = _run_all(one) if one else compile_for_shapes(_run_all(reference))
        if mode == "forward":

            def forward() -> tuple[torch.Tensor, ...]:
                with torch.no_grad():
                    return run(norms)

            return Call(forward)
        inputs, arguments = _require_grad(norms)
        out = run(arguments)
        return Call(lambda: torch.autograd.grad(out, inputs, gradients, retain_graph=True))

    return Provider(name, make)


def _require_grad(
    norms: list[dict[str, Any]], dtype: torch.dtype | None = None
) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
    """Return copies of the layers' tensors that require gradients, for timing a backward pass.

    norms: keyword arguments of each GroupNorm layer. Returns a list of all copies, and `norms` with
    the copies in place of the tensors. dtype: that of the copies, None keeps it.
    """
    inputs, arguments = [], []
    for norm in norms:
        copies = {
            name: value.detach().to(dtype or value.dtype).requires_grad_()
            if isinstance(value, torch.Tensor)
            else value
            for name, value in norm.items()
        }
        inputs += [value for value in copies.values() if isinstance(value, torch.Tensor)]
        arguments.append(copies)
    return inputs, arguments


def _exact(
    mode: str, norms: list[dict[str, Any]], gradients: list[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Return all layers' right outputs, or gradients of all inputs, to compare results with.

    They are PyTorch's in fp32. mode: "forward" returns outputs, "backward" gradients. norms:
    keyword arguments of each layer. gradients: that of each layer's output. Inputs are made
    contiguous first: PyTorch's channels-last GroupNorm on a CPU loses precision if the mean is
    large.
    """
    inputs, arguments = _require_grad(
        [norm | {"x": norm["x"].contiguous()} for norm in norms], torch.float32
    )
    out = _run_all(reference)(arguments)
    if mode == "forward":
        return tuple(y.detach() for y in out)
    return torch.autograd.grad(out, inputs, [g.float() for g in gradients])


def rows(
    device: str, dtype: torch.dtype, modes: Sequence[str], seconds: float = 0.2
) -> Iterator[Row]:
    """Time GroupNorm: every implementation ("ours", "torch eager", ...) at every shape and mode.

    Yields one Row of the benchmark's table for each, as it is measured; contiguous and
    channels-last tensors are different shapes. modes: "forward", "backward". seconds: how long each
    one is repeated. On a CPU only the smaller shapes and batches up to 2 are timed.
    """
    for shape in SHAPES:
        largest = max(norm.channels * norm.side**2 for norm in shape.norms)
        if torch.device(device).type == "cpu" and (shape.batch > 2 or largest > 1 << 22):
            continue
        norms = list(make_inputs(shape, dtype, device))
        gradients = [torch.randn_like(norm["x"]) for norm in norms]
        values = sum(norm["x"].numel() for norm in norms)
        for mode in modes:
            # read x, write y; backward: read x and dy, write dx
            passes = 2 if mode == "forward" else 3
            moved = values * norms[0]["x"].element_size() * passes
            yield from compare(
                "group_norm", mode, shape.full_title, dtype, [provider(p, mode) for p in RUNS],
                (norms, gradients), _exact(mode, norms, gradients),
                Work(FLOP * values * passes / 2, moved, "GB/s"), device, seconds,
            )  # fmt: skip
