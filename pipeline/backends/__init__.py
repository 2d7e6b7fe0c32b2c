"""Backends of attention and GroupNorm: which can run here, and if not, why.

`table.py` lists them. `auto` takes the first that can run, in the order of speed that
`python -m kernels.bench` measured (kernels/bench/results); kernels that Triton only interprets are
never among them. A backend asked for by name that cannot run is an InputError that says why, never
a silent swap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from ..errors import InputError, closest
from .attention_processor import AttentionProcessor
from .failures import BLACKLIST, KernelFailed, blacklist, wrap_kernel_errors
from .group_norm import swap_group_norm
from .order import order
from .table import ATTENTION, GROUP_NORM, KINDS, Backend, Kind

__all__ = [
    "ATTENTION",
    "GROUP_NORM",
    "KINDS",
    "AttentionProcessor",
    "Backend",
    "BackendSession",
    "Backends",
    "KernelFailed",
    "Kind",
    "blacklist",
    "candidates",
    "choose",
    "head_sizes",
    "order",
    "swap_group_norm",
    "unsupported_reason",
    "wrap_kernel_errors",
]
T = TypeVar("T")
NO_HEADS: frozenset[int] = frozenset()


def unsupported_reason(
    kind: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    heads: frozenset[int] = NO_HEADS,
) -> str | None:
    """Return why the backend `name` of `kind` cannot run there, in a sentence; None where it can.

    kind: "attention" or "group_norm". heads: the head sizes that attention is to compute.
    """
    backend = KINDS[kind].table[name]
    for head_size in sorted(heads) if kind == "attention" and heads else [None]:
        reason = backend.unsupported(device, dtype, head_size)
        if reason:
            return reason
    return BLACKLIST.get((KINDS[kind].name, name))


def candidates(
    kind: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    heads: frozenset[int] = NO_HEADS,
) -> tuple[str, ...]:
    """Return the backends to use for `name`, best first: itself, or for "auto" all that can run.

    Raises InputError for a name that does not exist and for one that cannot run there.
    """
    what, table = KINDS[kind].name, KINDS[kind].table
    if name == "auto":
        names = order(kind, device)
        return tuple(n for n in names if not unsupported_reason(kind, n, device, dtype, heads))
    if name not in table:
        there = closest(name, ["auto", *table])
        raise InputError(f"There is no {what} backend {name!r}; there is {there}.")
    reason = unsupported_reason(kind, name, device, dtype, heads)
    if reason:
        raise InputError(f"The {what} backend {name} cannot run here: {reason}")
    return (name,)


def choose(
    kind: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    heads: frozenset[int] = NO_HEADS,
) -> str:
    """Return the first of `candidates`."""
    return candidates(kind, name, device, dtype, heads)[0]


def head_sizes(network: nn.Module) -> frozenset[int]:
    """Return the head sizes of all attention layers of `network`."""
    return frozenset(
        m.inner_dim // m.heads for m in network.modules() if isinstance(m, Attention) and m.heads
    )


class Backends:
    """The backends of one model's UNet and autoencoder, which may change between two calls.

    attention, group_norm: names, or "auto".
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        device: torch.device,
        dtype: torch.dtype,
        attention: str = "auto",
        group_norm: str = "auto",
    ):
        self.networks = unet, vae
        self.device, self.dtype = device, dtype
        self.names = {"attention": attention, "group_norm": group_norm}
        self.heads = head_sizes(unet)
        self.vae_heads = head_sizes(vae)
        self.processor, self.vae_processor = AttentionProcessor("math"), AttentionProcessor("math")
        unet.set_attn_processor(self.processor)
        vae.set_attn_processor(self.vae_processor)
        self.group_norm = "torch"
        self.open_session()

    def open_session(
        self, attention: str | None = None, group_norm: str | None = None
    ) -> BackendSession:
        """Return a request's backends; None is the model's. InputError for one that can't run."""
        wanted = {"attention": attention, "group_norm": group_norm}
        names = {k: v or self.names[k] for k, v in wanted.items()}
        return BackendSession(self, {k: (v, self.candidates(k, v)) for k, v in names.items()})

    def candidates(self, kind: str, name: str) -> tuple[str, ...]:
        """Return `candidates` for this model."""
        return candidates(kind, name, self.device, self.dtype, self.heads)

    def unsupported_reason(self, kind: str, name: str) -> str | None:
        """Return `unsupported_reason` for this model."""
        return unsupported_reason(kind, name, self.device, self.dtype, self.heads)

    def install(self, attention: str, group_norm: str) -> None:
        """Put these backends into the networks. The caller holds the model's lock."""
        self.processor.name = attention
        # The autoencoder's one head of 512 is more than xformers and our kernels take.
        wide = self.vae_heads and unsupported_reason(
            "attention", attention, self.device, torch.float32, self.vae_heads
        )
        self.vae_processor.name = "sdpa" if wide else attention
        if group_norm != self.group_norm:
            for network in self.networks:
                swap_group_norm(network, group_norm)
            self.group_norm = group_norm


class BackendSession:
    """The backends of one request: `attention` and `group_norm` name what runs now."""

    def __init__(self, backends: Backends, choices: dict[str, tuple[str, tuple[str, ...]]]):
        """choices: for each kind the name asked for, and its candidates."""
        self._backends, self._choices = backends, choices
        self.vae_attention: str | None = None  # what ran in the autoencoder

    @property
    def attention(self) -> str:
        """The name of the attention backend."""
        return self._choices["attention"][1][0]

    @property
    def group_norm(self) -> str:
        """The name of the GroupNorm backend."""
        return self._choices["group_norm"][1][0]

    def call(self, function: Callable[[], T]) -> T:
        """Return what `function`, which calls the networks, returns. The caller holds the lock.

        Where a kernel fails, `auto` goes on with the next backend and calls `function` again; one
        that was asked for by name is an InputError.
        """
        while True:
            self._backends.install(self.attention, self.group_norm)
            self.vae_attention = self._backends.vae_processor.name
            try:
                return function()
            except KernelFailed as failure:
                blacklist(failure)
                kind = next(k for k, v in KINDS.items() if v.name == failure.kind)
                name, rest = self._choices[kind]
                if name != "auto" or len(rest) == 1:
                    raise InputError(f"{failure}.") from None
                self._choices[kind] = name, rest[1:]
