"""GroupNorm + SiLU at the sizes of Stable Diffusion's UNets and autoencoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..launch import INTERPRETED, device_problem
from .measure import Provider, Row, compare

GROUPS = 32
# (name, batch, channels, side, with the timestep's shift): the UNet's ResBlocks, then the VAE.
SHAPES = [
    ("SD 1.5 512", 2, 320, 64, True),
    ("SD 1.5 512", 2, 640, 32, True),
    ("SD 1.5 512", 2, 960, 64, False),
    ("SD 1.5 512", 2, 1280, 16, True),
    ("SD 1.5 512", 2, 1920, 32, False),
    ("SD 1.5 512", 2, 2560, 8, False),
    ("SD 1.5 512", 8, 320, 64, True),
    ("SDXL 1024", 2, 320, 128, True),
    ("SDXL 1024", 2, 640, 64, True),
    ("SDXL 1024", 2, 1280, 32, True),
    ("VAE 512", 1, 512, 64, False),
    ("VAE 512", 1, 512, 256, False),
    ("VAE 512", 1, 256, 512, False),
    ("VAE 512", 1, 128, 512, False),
    ("VAE 1024", 1, 128, 1024, False),
]
MODES = ("forward", "backward")


def _ours(x, weight, bias, shift):
    from ..group_norm import group_norm

    if INTERPRETED or device_problem(x.device):
        raise RuntimeError(
            device_problem(x.device) or "interpreted: that tells nothing about time."
        )
    return group_norm(x, GROUPS, weight, bias, silu=True, shift=shift)


def _eager(x, weight, bias, shift):
    from ..group_norm import reference

    return reference(x, GROUPS, weight, bias, 1e-5, silu=True, shift=shift)


RUNS = {"ours": _ours, "torch eager": _eager, "torch.compile": None}


def provider(name: str, mode: str) -> Provider:
    """The provider `name` of RUNS for "forward" or "backward"."""

    def make(x, weight, bias, shift, dy):
        run = RUNS[name] or torch.compile(_eager)
        if mode == "forward":

            def call():
                with torch.no_grad():
                    return run(x, weight, bias, shift)

        else:
            given = [t for t in (x, weight, bias, shift) if t is not None]
            leaves = [t.detach().requires_grad_() for t in given]
            out = run(*leaves, *([None] if shift is None else []))

            def call():
                return torch.autograd.grad(out, leaves, dy, retain_graph=True)

        return call

    return Provider(name, make)


def rows(device: str, dtype: torch.dtype, modes=MODES, seconds: float = 0.2) -> Iterator[Row]:
    """Every shape, layout and mode with every provider. On a CPU: the UNet's shapes."""
    for name, n, c, side, shifted in SHAPES:
        if torch.device(device).type == "cpu" and (n > 2 or c * side * side > 1 << 22):
            continue
        for layout in (torch.contiguous_format, torch.channels_last):
            g = torch.Generator(device).manual_seed(0)

            def draw(*shape, g=g):
                return torch.randn(shape, generator=g, device=device, dtype=dtype)

            x = draw(n, c, side, side).to(memory_format=layout)
            dy = draw(n, c, side, side).to(memory_format=layout)
            weight, bias, shift = draw(c), draw(c), draw(n, c) if shifted else None
            called = "NHWC" if layout is torch.channels_last else "NCHW"
            for mode in modes:
                # without SiLU's input kept: read x, write y; backward: read x and dy, write dx
                moved = x.numel() * x.element_size() * (2 if mode == "forward" else 3)
                exact = _exact(mode, x, weight, bias, shift, dy)
                yield from compare(
                    "group_norm", mode, f"{name} B{n} {c}x{side}x{side} {called}", dtype,
                    [provider(p, mode) for p in RUNS],
                    (x, weight, bias, shift, dy), exact, moved, "GB/s", device, seconds,
                )  # fmt: skip


def _exact(mode, x, weight, bias, shift, dy):
    given = [t for t in (x, weight, bias, shift) if t is not None]
    leaves = [t.float().contiguous().requires_grad_(mode == "backward") for t in given]
    out = _eager(*leaves, *([None] if shift is None else []))
    return out if mode == "forward" else torch.autograd.grad(out, leaves, dy.float())
