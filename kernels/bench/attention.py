"""Time attention at Stable Diffusion's shapes: our kernel, PyTorch's SDPA, xformers and others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F

from .. import shapes
from ..attention import attention, reference
from ..attention.cases import make_inputs
from ..attention.reference import reference_by_head
from ..launch import INTERPRETED, device_problem, dtype_name
from .measure import Call, Provider, Row, Work, compare, compile_for_shapes

SHAPES = [shape for shape in shapes.ATTENTION if shape.measured]


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def require_gpu(device: torch.device) -> None:
    """Raise RuntimeError unless our kernels can be timed on `device`.

    They must run as compiled code there. In Triton's interpreter their time says nothing about the
    kernel.
    """
    problem = device_problem(device)
    if INTERPRETED or problem:
        raise RuntimeError(problem or "interpreted: its time says nothing about the kernel.")


def _ours(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    require_gpu(q.device)
    return attention(q, k, v)


def _sdpa_backend(backend: str) -> Callable[..., torch.Tensor]:
    """Return a function (q, k, v) that calls SDPA with one of its backends alone, to time that one.

    backend: name of a member of torch.nn.attention.SDPBackend. The function raises an exception if
    that backend can't run.
    """

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(getattr(SDPBackend, backend)):
            return _sdpa(q, k, v)

    return run


def _xformers(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    from xformers.ops import memory_efficient_attention

    try:
        return memory_efficient_attention(q, k, v)
    except NotImplementedError:  # its message is a page long
        kind = f"{q.device.type} tensors of type {dtype_name(q.dtype)} with heads of {q.shape[-1]}"
        raise RuntimeError(f"xformers has no operator for {kind}") from None


def _xformers_operator(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> str:
    """Return the name of the operator that xformers chooses for these inputs, "" if unknown.

    The benchmark's table shows it beside the time.
    """
    try:
        from xformers.ops import fmha

        return fmha._dispatch_fw(fmha.Inputs(q, k, v), False).NAME
    except Exception:  # a private function that has moved between versions
        return ""


RUNS: dict[str, Callable[..., torch.Tensor] | None] = {
    "ours": _ours,
    "sdpa": _sdpa,  # PyTorch chooses
    "sdpa flash": _sdpa_backend("FLASH_ATTENTION"),
    "sdpa efficient": _sdpa_backend("EFFICIENT_ATTENTION"),
    "sdpa cudnn": _sdpa_backend("CUDNN_ATTENTION"),
    "xformers": _xformers,
    "torch eager": reference,
    "torch.compile": None,  # the reference, compiled anew for each shape
}


def provider(name: str, mode: str) -> Provider:
    """Return an implementation of attention for the benchmark: its name and how to call it.

    name: a key of RUNS, such as "ours" or "sdpa flash". mode: "forward" or "backward", what is
    timed.
    """

    def make(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, do: torch.Tensor) -> Call:
        run = RUNS[name] or compile_for_shapes(reference)
        note = _xformers_operator(q, k, v) if name == "xformers" else ""
        if mode == "forward":

            def forward() -> torch.Tensor:
                with torch.no_grad():
                    return run(q, k, v)

            return Call(forward, note)
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        out = run(*inputs)
        return Call(lambda: torch.autograd.grad(out, inputs, do, retain_graph=True), note)

    return Provider(name, make)


def work_of(q: torch.Tensor, k: torch.Tensor, mode: str) -> Work:
    """Return the floating-point operations and bytes of one call of attention, to rate its time by.

    q (B, Tq, H, D), k (B, Tk, H, D). mode: "forward" has two matrix products, "backward" five. The
    bytes are those of q, k, v and o, each moved once, and twice as many backward.
    """
    b, tq, h, d = q.shape
    tk = k.shape[1]
    flop = 4 * b * h * tq * tk * d
    moved = (2 * tq + 2 * tk) * b * h * d * q.element_size()
    return (
        Work(flop, moved, "TFLOP/s")
        if mode == "forward"
        else Work(2.5 * flop, 2 * moved, "TFLOP/s")
    )


def rows(
    device: str, dtype: torch.dtype, modes: Sequence[str], seconds: float = 0.2
) -> Iterator[Row]:
    """Time attention: each implementation ("ours", "sdpa", "xformers" ...) at each shape and mode.

    Yields one Row of the benchmark's table for each, as it is measured. modes: "forward",
    "backward". seconds: how long each one is repeated. On a CPU only small shapes and batches up to
    2 are timed.
    """
    for shape in SHAPES:
        if torch.device(device).type == "cpu" and (
            shape.batch > 2 or shape.queries * shape.keys > 1 << 21
        ):
            continue
        (inputs,) = make_inputs(shape, dtype, device)
        q, k, v = inputs.values()
        do = torch.randn_like(q)
        for mode in modes:
            exact: torch.Tensor | tuple[torch.Tensor, ...]
            if mode == "forward":
                with torch.no_grad():
                    exact = reference_by_head(q.float(), k.float(), v.float())
            else:
                inputs32 = [x.float().requires_grad_() for x in (q, k, v)]
                exact = torch.autograd.grad(_sdpa(*inputs32), inputs32, do.float())
            yield from compare(
                "attention", mode, shape.full_title, dtype, [provider(n, mode) for n in RUNS],
                (q, k, v, do), exact, work_of(q, k, mode), device, seconds,
            )  # fmt: skip
