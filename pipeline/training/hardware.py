"""What a device is good at: number types, and who runs attention and GroupNorm in training."""

from __future__ import annotations

import torch
from torch import nn

from ..backends import (
    ATTENTION,
    KINDS,
    AttentionProcessor,
    KernelFailed,
    blacklist,
    candidates,
    head_sizes,
    swap_group_norm,
    wrap_kernel_errors,
)
from ..errors import InputError


def bf16_is_fast(device: str) -> bool:
    """Whether `device` multiplies bfloat16 in hardware; a processor that only emulates it takes
    five times as long as in float32."""
    if torch.device(device).type != "cpu":
        return True
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


def install(network: nn.Module, device: str, attention: str, group_norm: str) -> None:
    """Train `network` on these backends, forward and backward; "auto" is what draws pictures here,
    but for attention on a CPU: PyTorch's fused one is slow backward there (57 pictures/s, not 70).

    Raises InputError for a backend that can't run on `device`.
    """
    place = torch.device(device)
    dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
    heads = head_sizes(network)
    if attention == "auto" and place.type == "cpu":
        attention = "math"
    name = _first("attention", attention, place, dtype, heads, _try_attention)
    if heads:
        network.set_attn_processor(AttentionProcessor(name))
    swap_group_norm(network, _first("group_norm", group_norm, place, dtype, None, _try_norm))


def _first(kind: str, name: str, place, dtype, heads, attempt) -> str:
    """The first backend that also gets through a small step backward, which drawing never needs."""
    for backend in candidates(kind, name, place, dtype, heads or frozenset()):
        x = torch.randn((2, 8, 4, 8), device=place, dtype=dtype, requires_grad=True)
        try:
            with wrap_kernel_errors(KINDS[kind].name, backend, x):
                attempt(backend, x).sum().backward()
            return backend
        except KernelFailed as failure:
            blacklist(failure)
            last = failure
    raise InputError(f"{last}.")


def _try_attention(name: str, x: torch.Tensor) -> torch.Tensor:
    return ATTENTION[name].run(x, x, x)  # a head of 8 channels


def _try_norm(name: str, x: torch.Tensor) -> torch.Tensor:
    norm = nn.GroupNorm(2, 8, device=x.device, dtype=x.dtype)
    swap_group_norm(norm, name)
    return norm(x)


def restore(network: nn.Module) -> None:
    """PyTorch's own GroupNorm again, so that the network runs on any device."""
    swap_group_norm(network, "torch")
