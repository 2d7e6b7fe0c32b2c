"""Attention's shapes in Stable Diffusion, and everyone who can compute it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from ..launch import INTERPRETED, device_problem, dtype_name
from .measure import Provider, Row, Work, compare, compiled

# (name, batch with guidance, queries, keys, heads, head size)
SHAPES = [
    ("SD 1.5 512", 2, 4096, 4096, 8, 40),
    ("SD 1.5 512", 2, 1024, 1024, 8, 80),
    ("SD 1.5 512", 2, 256, 256, 8, 160),
    ("SD 1.5 512", 2, 64, 64, 8, 160),
    ("SD 1.5 512", 2, 4096, 77, 8, 40),
    ("SD 1.5 512", 2, 1024, 77, 8, 80),
    ("SD 1.5 512", 2, 256, 77, 8, 160),
    ("SD 1.5 512", 8, 4096, 4096, 8, 40),
    ("SD 1.5 768", 2, 9216, 9216, 8, 40),
    ("SD 2.1 768", 2, 9216, 9216, 5, 64),
    ("SD 2.1 768", 2, 2304, 2304, 10, 64),
    ("SD 2.1 768", 2, 9216, 77, 5, 64),
    ("SDXL 1024", 2, 4096, 4096, 10, 64),
    ("SDXL 1024", 2, 1024, 1024, 20, 64),
    ("SDXL 1024", 2, 4096, 77, 10, 64),
    ("SDXL 1024", 2, 1024, 77, 20, 64),
    ("SDXL 1024", 8, 4096, 4096, 10, 64),
    ("emoji 128", 2, 64, 64, 4, 32),
    ("emoji 128", 2, 64, 77, 4, 32),
]
MODES = ("forward", "backward")


def _sdpa(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def refuse(device: torch.device) -> None:
    """RuntimeError where our kernels can't run, or would only be interpreted."""
    problem = device_problem(device)
    if INTERPRETED or problem:
        raise RuntimeError(problem or "interpreted: that tells nothing about time.")


def _ours(q, k, v):
    from ..attention import attention

    refuse(q.device)
    return attention(q, k, v)


def _named(backend: str):
    def run(q, k, v):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(getattr(SDPBackend, backend)):
            return _sdpa(q, k, v)

    return run


def _xformers(q, k, v):
    from xformers.ops import memory_efficient_attention

    try:
        return memory_efficient_attention(q, k, v)
    except NotImplementedError:  # a page long
        kind = f"{q.device.type} tensors of type {dtype_name(q.dtype)} with heads of {q.shape[-1]}"
        raise RuntimeError(f"xformers has no operator for {kind}") from None


def _xformers_operator(q, k, v) -> str:
    try:
        from xformers.ops import fmha

        return fmha._dispatch_fw(fmha.Inputs(q, k, v), False).NAME
    except Exception:  # private, and moved before
        return ""


def _eager(q, k, v):
    from ..attention import reference

    return reference(q, k, v)


RUNS = {
    "ours": _ours,
    "sdpa": _sdpa,  # PyTorch chooses
    "sdpa flash": _named("FLASH_ATTENTION"),
    "sdpa efficient": _named("EFFICIENT_ATTENTION"),
    "sdpa cudnn": _named("CUDNN_ATTENTION"),
    "xformers": _xformers,
    "torch eager": _eager,
    "torch.compile": None,  # made when it is wanted
}


def provider(name: str, mode: str) -> Provider:
    """The provider `name` of RUNS for "forward" or "backward"."""

    def make(q, k, v, do):
        run = RUNS[name] or compiled(_eager)
        if mode == "forward":

            def call():
                with torch.no_grad():
                    return run(q, k, v)

        else:
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            out = run(*leaves)

            def call():
                return torch.autograd.grad(out, leaves, do, retain_graph=True)

        if name == "xformers":
            call.note = _xformers_operator(q, k, v)
        return call

    return Provider(name, make)


def work_of(q: torch.Tensor, k: torch.Tensor, mode: str) -> Work:
    """Two matrix products forward, five backward; every tensor moved once."""
    b, tq, h, d = q.shape
    tk = k.shape[1]
    flop = 4 * b * h * tq * tk * d
    moved = (2 * tq + 2 * tk) * b * h * d * q.element_size()
    return (
        Work(flop, moved, "TFLOP/s")
        if mode == "forward"
        else Work(2.5 * flop, 2 * moved, "TFLOP/s")
    )


def rows(device: str, dtype: torch.dtype, modes=MODES, seconds: float = 0.2) -> Iterator[Row]:
    """Every shape and mode with every provider. On a CPU: small batches of the small shapes."""
    from ..attention import reference

    for name, b, tq, tk, h, d in SHAPES:
        if torch.device(device).type == "cpu" and (b > 2 or tq * tk > 1 << 21):
            continue
        g = torch.Generator(device).manual_seed(0)
        q, k, v, do = (
            torch.randn(b, t, h, d, generator=g, device=device, dtype=dtype)
            for t in (tq, tk, tk, tq)
        )
        for mode in modes:
            if mode == "forward":
                with torch.no_grad():
                    exact = _by_head(reference, q, k, v)
            else:
                leaves = [x.float().requires_grad_() for x in (q, k, v)]
                exact = torch.autograd.grad(_sdpa(*leaves), leaves, do.float())
            work = work_of(q, k, mode)
            yield from compare(
                "attention", mode, f"{name} B{b} {tq}x{tk} H{h} D{d}", dtype,
                [provider(n, mode) for n in RUNS],
                (q, k, v, do), exact, work, device, seconds,
            )  # fmt: skip


def _by_head(fn, q, k, v) -> torch.Tensor:
    """`fn` in fp32, a head at a time: the whole (B, H, Tq, Tk) would take gigabytes."""
    parts = [fn(*(x[:, :, i : i + 1].float() for x in (q, k, v))) for i in range(q.shape[2])]
    return torch.cat(parts, 2)
