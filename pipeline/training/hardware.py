"""Choose dtypes and attention and GroupNorm backends that train well on a device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
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
    untrainable_reason,
    wrap_kernel_errors,
)
from ..errors import InputError


def bf16_is_fast(device: str) -> bool:
    """Return whether `device` ("cpu", "cuda:0") computes in bfloat16 fast enough to train in it.

    True for every device but a CPU without bfloat16 instructions. A CPU that emulates bfloat16 is
    five times slower than in float32.
    """
    if torch.device(device).type != "cpu":
        return True
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


def install_backends(
    network: UNet2DConditionModel | AutoencoderKL, device: str, attention: str, group_norm: str
) -> None:
    """Install attention and GroupNorm kernels in `network` that have a backward pass, to train it.

    attention, group_norm: name of a kernel (backend), or "auto" for the first that works, in the
    order used for drawing pictures. The exception is attention on a CPU, where "auto" means "math",
    because the backward pass of PyTorch's fused attention is slow there (57 pictures/s instead of
    70). Raises InputError if the named backend cannot train on `device`.
    """
    target = torch.device(device)
    dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    heads = head_sizes(network)
    if attention == "auto" and target.type == "cpu":
        attention = "math"
    name = find_trainable("attention", attention, target, dtype, heads, _try_attention)
    if heads:
        network.set_attn_processor(AttentionProcessor(name))
    swap_group_norm(
        network, find_trainable("group_norm", group_norm, target, dtype, None, _try_norm)
    )


def find_trainable(
    kind: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    heads: frozenset[int] | None,
    attempt: Callable[[str, torch.Tensor], torch.Tensor],
) -> str:
    """Find a kernel that can train: return the first that does a small forward and backward pass.

    kind: "attention" or "group_norm"; name: the name of a kernel (backend) of that kind, or "auto"
    to try all; heads: head sizes that attention must support, None for GroupNorm; attempt(backend,
    x): run `backend` on x (2, 8, 4, 8). Raises InputError if none succeeds.
    """
    last: KernelFailed | None = None
    for backend in candidates(kind, name, device, dtype, heads or frozenset()):
        if reason := untrainable_reason(kind, backend, device, dtype, heads or frozenset()):
            if name != "auto":
                raise InputError(f"The {KINDS[kind].name} backend {name} cannot train: {reason}")
            continue
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
    return ATTENTION[name].run(x, x, x)  # 4 heads of 8 channels


def _try_norm(name: str, x: torch.Tensor) -> torch.Tensor:
    norm = nn.GroupNorm(2, 8, device=x.device, dtype=x.dtype)
    swap_group_norm(norm, name)
    return norm(x)


def restore_group_norm(network: nn.Module) -> None:
    """Replace the GroupNorm kernels in `network` by PyTorch's, so that it runs on any device."""
    swap_group_norm(network, "torch")
