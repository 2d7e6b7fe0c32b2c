"""Who can run attention and GroupNorm here, and if not, why.

Each backend has `unsupported(device, dtype) -> str | None`. `auto` takes the first that can run, in
the order of speed that `python -m kernels.bench` measured (kernels/bench/results); kernels that
Triton only interprets are never among them. A backend asked for by name that cannot run is an
InputError that says why, never a silent swap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from diffusers.models.attention_processor import Attention

from ..errors import InputError, closest
from .attention_processor import ATTENTION, AttentionProcessor
from .failures import BLACKLIST, KernelFailed, blacklist, wrap_kernel_errors
from .group_norm import GROUP_NORM, swap_group_norm
from .order import order

__all__ = [
    "ATTENTION",
    "GROUP_NORM",
    "KINDS",
    "AttentionProcessor",
    "BackendSession",
    "Backends",
    "KernelFailed",
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


@dataclass(frozen=True)
class Kind:
    """What can be chosen: its name in sentences, its flag and its table of backends."""

    name: str
    flag: str
    table: dict


KINDS = {
    "attention": Kind("attention", "--attention", ATTENTION),
    "group_norm": Kind("GroupNorm", "--group-norm", GROUP_NORM),
}


def unsupported_reason(
    kind: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    heads: frozenset[int] = frozenset(),
) -> str | None:
    """Why the backend `name` of `kind` ("attention", "group_norm") can't run here; None where it
    can. `heads`: the head sizes that attention is to take."""
    backend = KINDS[kind].table[name]
    asked = [{"head_size": d} for d in sorted(heads)] if kind == "attention" else []
    for more in asked or [{}]:
        reason = backend.unsupported(device, dtype, **more)
        if reason:
            return reason
    return BLACKLIST.get((KINDS[kind].name, name))


def candidates(kind: str, name: str, device: torch.device, dtype: torch.dtype, heads=frozenset()):
    """The backends to use for `name`, best first: itself alone, or for "auto" all that can run.

    InputError for a name that does not exist, and for one that can't run here.
    """
    what, table = KINDS[kind].name, KINDS[kind].table
    if name == "auto":
        names = order(kind, device)
        return tuple(n for n in names if unsupported_reason(kind, n, device, dtype, heads) is None)
    if name not in table:
        there = closest(name, ["auto", *table])
        raise InputError(f"There is no {what} backend {name!r}; there is {there}.")
    reason = unsupported_reason(kind, name, device, dtype, heads)
    if reason:
        raise InputError(f"The {what} backend {name} cannot run here: {reason}")
    return (name,)


def choose(kind: str, name: str, device: torch.device, dtype: torch.dtype, heads=frozenset()):
    """The backend of `kind` that `name` means here, see `candidates`."""
    return candidates(kind, name, device, dtype, heads)[0]


def head_sizes(network) -> frozenset[int]:
    """The head sizes of all attention layers of `network`."""
    return frozenset(
        m.inner_dim // m.heads for m in network.modules() if isinstance(m, Attention) and m.heads
    )


class Backends:
    """What runs attention and GroupNorm of one model's UNet and autoencoder, changed between two
    calls. `attention` and `group_norm` are names, or "auto"."""

    def __init__(
        self,
        unet,
        vae,
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
        """A request's own choice; None is the model's. InputError for one that can't run here."""
        wanted = {"attention": attention, "group_norm": group_norm}
        names = {k: v or self.names[k] for k, v in wanted.items()}
        return BackendSession(self, {k: (v, self.candidates(k, v)) for k, v in names.items()})

    def candidates(self, kind: str, name: str) -> tuple[str, ...]:
        """See `candidates`, for this model."""
        return candidates(kind, name, self.device, self.dtype, self.heads)

    def unsupported_reason(self, kind: str, name: str) -> str | None:
        """See `unsupported_reason`, for this model."""
        return unsupported_reason(kind, name, self.device, self.dtype, self.heads)

    def install(self, attention: str, group_norm: str) -> None:
        """The caller holds the model's lock."""
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
        self._backends, self._choices = backends, choices
        self.vae_attention: str | None = None  # what ran in the autoencoder

    @property
    def attention(self) -> str:
        return self._choices["attention"][1][0]

    @property
    def group_norm(self) -> str:
        return self._choices["group_norm"][1][0]

    def call(self, function: Callable[[], T]) -> T:
        """What `function`, which calls the networks, returns. The caller holds the model's lock.

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
