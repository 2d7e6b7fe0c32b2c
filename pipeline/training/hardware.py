"""Number types and backends that a device trains well with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    """Return whether `device` multiplies bfloat16 in hardware.

    A processor that emulates it takes five times as long as in float32.
    """
    if torch.device(device).type != "cpu":
        return True
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


def install_backends(network: Any, device: str, attention: str, group_norm: str) -> None:
    """Put backends into a UNet or autoencoder that run forward and backward.

    "auto" takes what pictures are drawn with, except attention on a CPU: the backward pass of
    PyTorch's fused attention is slow there (57 pictures/s instead of 70). Raises InputError for a
    backend that cannot run on `device`.
    """
    where = torch.device(device)
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    heads = head_sizes(network)
    if attention == "auto" and where.type == "cpu":
        attention = "math"
    name = find_trainable("attention", attention, where, dtype, heads, _try_attention)
    if heads:
        network.set_attn_processor(AttentionProcessor(name))
    swap_group_norm(
        network, find_trainable("group_norm", group_norm, where, dtype, None, _try_norm)
    )


def find_trainable(
    kind: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    heads: frozenset[int] | None,
    attempt: Callable[[str, torch.Tensor], torch.Tensor],
) -> str:
    """Return the first backend of `kind` that also completes a small backward pass.

    name: a backend or "auto"; heads: head sizes that attention must support; attempt(backend, x):
    calls the backend. Raises InputError where none does.
    """
    last: KernelFailed | None = None
    for backend in candidates(kind, name, device, dtype, heads or frozenset()):
        x = torch.randn((2, 8, 4, 8), device=device, dtype=dtype, requires_grad=True)
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


def restore_group_norm(network: nn.Module) -> None:
    """Put PyTorch's own GroupNorm back, so that the network runs on any device."""
    swap_group_norm(network, "torch")
