"""GroupNorm + SiLU at the sizes of Stable Diffusion's UNets and autoencoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .attention import refuse
from .measure import Provider, Row, Work, compare, compiled

GROUPS = 32
# Norms of a shape: (channels, side, with the timestep's shift, with SiLU, how many).
UNET = [
    (320, 64, False, False, 5), (320, 64, False, True, 3), (320, 64, True, True, 5),
    (640, 64, False, True, 2), (960, 64, False, True, 1), (320, 32, False, True, 1),
    (640, 32, False, False, 5), (640, 32, False, True, 1), (640, 32, True, True, 5),
    (960, 32, False, True, 1), (1280, 32, False, True, 1), (1920, 32, False, True, 1),
    (640, 16, False, True, 1), (1280, 16, False, False, 5), (1280, 16, False, True, 1),
    (1280, 16, True, True, 5), (1920, 16, False, True, 1), (2560, 16, False, True, 2),
    (1280, 8, False, False, 1), (1280, 8, False, True, 4), (1280, 8, True, True, 7),
    (2560, 8, False, True, 3),
]  # fmt: skip
# (name, batch, norms): single ones of the UNets, all 61 of SD 1.5's, and the autoencoder's.
SHAPES = [
    ("SD 1.5 512", 2, [(320, 64, True, True, 1)]),
    ("SD 1.5 512", 2, [(640, 32, True, True, 1)]),
    ("SD 1.5 512", 2, [(960, 64, False, True, 1)]),
    ("SD 1.5 512", 2, [(1280, 16, True, True, 1)]),
    ("SD 1.5 512", 2, [(1920, 32, False, True, 1)]),
    ("SD 1.5 512", 2, [(2560, 8, False, True, 1)]),
    ("SD 1.5 512", 8, [(320, 64, True, True, 1)]),
    ("SD 1.5 512", 2, UNET),
    ("SD 1.5 768", 2, [(320, 96, True, True, 1)]),
    ("SDXL 1024", 2, [(320, 128, True, True, 1)]),
    ("SDXL 1024", 2, [(640, 64, True, True, 1)]),
    ("SDXL 1024", 2, [(1280, 32, True, True, 1)]),
    ("VAE 512", 1, [(512, 64, False, True, 1)]),
    ("VAE 512", 1, [(512, 256, False, True, 1)]),
    ("VAE 512", 1, [(256, 512, False, True, 1)]),
    ("VAE 512", 1, [(128, 512, False, True, 1)]),
    ("VAE 1024", 1, [(128, 1024, False, True, 1)]),
]
MODES = ("forward", "backward")
FLOP = 12  # a value: shift, statistics, normalise, scale, SiLU


def _ours(x, weight, bias, shift, silu):
    from ..group_norm import group_norm

    refuse(x.device)
    return group_norm(x, GROUPS, weight, bias, silu=silu, shift=shift)


def _eager(x, weight, bias, shift, silu):
    from ..group_norm import reference

    return reference(x, GROUPS, weight, bias, 1e-5, silu=silu, shift=shift)


RUNS = {"ours": _ours, "torch eager": _eager, "torch.compile": None}


def _all(run):
    return lambda norms: tuple([run(*norm) for norm in norms])


def provider(name: str, mode: str) -> Provider:
    """The provider `name` of RUNS for "forward" or "backward"."""

    def make(norms, gradients):
        run = _all(RUNS[name]) if RUNS[name] else compiled(_all(_eager))
        if mode == "forward":

            def call():
                with torch.no_grad():
                    return run(norms)

        else:
            leaves, given = _leaves(norms)
            out = run(given)

            def call():
                return torch.autograd.grad(out, leaves, gradients, retain_graph=True)

        return call

    return Provider(name, make)


def _leaves(norms, dtype=None):
    """The norms with fresh leaves for tensors, and the list of those leaves."""
    leaves, given = [], []
    for norm in norms:
        fresh = [
            t
            if not isinstance(t, torch.Tensor)
            else t.detach().to(dtype or t.dtype).requires_grad_()
            for t in norm
        ]
        leaves += [t for t in fresh if isinstance(t, torch.Tensor)]
        given.append(tuple(fresh))
    return leaves, given


def _exact(mode: str, norms, gradients):
    """In fp32 and contiguous: PyTorch's channels-last GroupNorm on a CPU loses a large mean."""
    plain = [(norm[0].contiguous(), *norm[1:]) for norm in norms]
    leaves, given = _leaves(plain, torch.float32)
    out = _all(_eager)(given)
    if mode == "forward":
        return tuple(y.detach() for y in out)
    return torch.autograd.grad(out, leaves, [g.float() for g in gradients])


def rows(device: str, dtype: torch.dtype, modes=MODES, seconds: float = 0.2) -> Iterator[Row]:
    """Every shape, layout and mode with every provider. On a CPU: the UNet's shapes."""
    for name, n, norms in SHAPES:
        largest = max(c * side * side for c, side, *_ in norms)
        if torch.device(device).type == "cpu" and (n > 2 or largest > 1 << 22):
            continue
        count = sum(norm[-1] for norm in norms)
        c, side = norms[0][:2]
        called = f"{c}x{side}x{side}" if count == 1 else f"all {count} norms"
        for layout in (torch.contiguous_format, torch.channels_last):
            g = torch.Generator(device).manual_seed(0)

            def draw(*shape, g=g):
                return torch.randn(shape, generator=g, device=device, dtype=dtype)

            inputs = [
                (
                    draw(n, c, side, side).to(memory_format=layout),
                    draw(c), draw(c), draw(n, c) if shifted else None, silu,
                )
                for c, side, shifted, silu, times in norms
                for _ in range(times)
            ]  # fmt: skip
            gradients = [draw(*x.shape).to(memory_format=layout) for x, *_ in inputs]
            shape = f"{name} B{n} {called} {'NHWC' if layout is torch.channels_last else 'NCHW'}"
            values = sum(x.numel() for x, *_ in inputs)
            for mode in modes:
                # read x, write y; backward: read x and dy, write dx
                passes = 2 if mode == "forward" else 3
                moved = values * inputs[0][0].element_size() * passes
                yield from compare(
                    "group_norm", mode, shape, dtype, [provider(p, mode) for p in RUNS],
                    (inputs, gradients), _exact(mode, inputs, gradients),
                    Work(FLOP * values * passes / 2, moved, "GB/s"), device, seconds,
                )  # fmt: skip
