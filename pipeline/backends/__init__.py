"""Who can run attention and GroupNorm here, and if not, why.

Each backend has `unsupported(device, dtype) -> str | None`. `auto` takes the first of its order
that can run on the device; kernels that Triton only interprets are never among them. A backend
asked for by name that cannot run is an InputError that says why, never a silent swap.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention

from ..errors import InputError, closest
from .attention import ATTENTION, AttentionProcessor, install_attention
from .group_norm import GROUP_NORM, install_group_norm

__all__ = [
    "ATTENTION",
    "AUTO_ATTENTION",
    "AUTO_GROUP_NORM",
    "GROUP_NORM",
    "AttentionProcessor",
    "choose_attention",
    "choose_group_norm",
    "fallbacks",
    "head_sizes",
    "install_attention",
    "install_group_norm",
]

# What auto tries, in order. On a CPU SDPA was measured to be fastest. The kernels lead on GPUs once
# `python -m kernels.bench` has shown there that they are faster.
AUTO_ATTENTION = {"cuda": ("sdpa", "xformers", "triton", "math"), "": ("sdpa", "math")}
AUTO_GROUP_NORM = {"cuda": ("torch", "triton"), "": ("torch",)}


def _order(auto: dict, device: torch.device) -> tuple[str, ...]:
    return auto.get(device.type, auto[""])


def _choose(kind: str, table: dict, auto: dict, name: str, reason_of) -> str:
    if name == "auto":
        return next(n for n in auto if reason_of(table[n]) is None)
    if name not in table:
        raise InputError(
            f"There is no {kind} backend {name!r}; there is {closest(name, ['auto', *table])}."
        )
    reason = reason_of(table[name])
    if reason:
        raise InputError(f"The {kind} backend {name} cannot run here: {reason}")
    return name


def choose_attention(
    name: str, device: torch.device, dtype: torch.dtype, heads: frozenset[int] = frozenset()
) -> str:
    """The attention backend that `name` ("auto" or of ATTENTION) means here for these heads."""

    def reason(backend) -> str | None:
        asked = [{"head_size": d} for d in sorted(heads)] or [{}]
        return next(filter(None, (backend.unsupported(device, dtype, **a) for a in asked)), None)

    return _choose("attention", ATTENTION, _order(AUTO_ATTENTION, device), name, reason)


def head_sizes(unet) -> frozenset[int]:
    """The head sizes of all attention layers of `unet`."""
    return frozenset(
        m.inner_dim // m.heads for m in unet.modules() if isinstance(m, Attention) and m.heads
    )


def choose_group_norm(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The GroupNorm backend that `name` ("auto" or of GROUP_NORM) means here."""

    def reason(backend) -> str | None:
        return backend.unsupported(device, dtype)

    return _choose("GroupNorm", GROUP_NORM, _order(AUTO_GROUP_NORM, device), name, reason)


def fallbacks(name: str, device: torch.device) -> tuple[str, ...]:
    """What goes on where `auto` chose `name` and it fails while it runs: the rest of the order."""
    order = _order(AUTO_ATTENTION, device)
    return order[order.index(name) + 1 :] if name in order else ()
