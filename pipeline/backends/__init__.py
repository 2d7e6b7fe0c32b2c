"""Backends of attention and GroupNorm: which of them can run here, and why the others cannot.

A backend is an implementation such as "sdpa", "xformers" or "triton"; `table.py` lists them. The
name "auto" means the first backend that can run, in the order of speed that `python -m
kernels.bench` measured (kernels/bench/results); kernels that Triton would interpret on a CPU are
never chosen. If a backend is asked for by name and cannot run, an InputError says why: it is never
replaced silently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from ..errors import InputError, closest
from . import trust
from .attention_per_shape import Shape, fixed_choices
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
    "untrainable_reason",
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
    """Return in one sentence why a backend cannot run on `device`, or None if it can.

    kind: the operation, "attention" or "group_norm". name: one of its backends, such as "sdpa" or
    "triton". heads: the head sizes that attention must support; empty leaves them unchecked. A
    backend that failed earlier in this process cannot run either.
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
    """Return the names of the backends with which to try an operation, best first.

    kind: the operation, "attention" or "group_norm". name: what the user chose: one backend, which
    is returned alone, or "auto", for which all that can run are returned. heads: the head sizes
    that attention must support. Raises InputError if `name` does not exist or cannot run. If our
    kernels are named and were never checked on this GPU, they are checked first.
    """
    what, table = KINDS[kind].name, KINDS[kind].table
    if name == "auto":
        names = order(kind, device)
        return tuple(n for n in names if not unsupported_reason(kind, n, device, dtype, heads))
    if name not in table:
        there = closest(name, ["auto", *table])
        raise InputError(f"There is no {what} backend {name!r}; there is {there}.")
    reason = unsupported_reason(kind, name, device, dtype, heads)
    if trust.is_unchecked(reason):
        reason = trust.check_by_name(device, dtype, heads) or unsupported_reason(
            kind, name, device, dtype, heads
        )
    if reason:
        raise InputError(f"The {what} backend {name} cannot run here: {reason}")
    return (name,)


def untrainable_reason(
    kind: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    heads: frozenset[int] = NO_HEADS,
) -> str | None:
    """Return in one sentence why a backend that can draw can't compute gradients, or None.

    None: it can. kind: the operation, "attention" or "group_norm". name: one of its backends, such
    as "sdpa". heads: the head sizes of the network that is trained.
    """
    code = KINDS[kind].table[name].code if KINDS[kind].table[name].file else None
    check = getattr(code, "backward_unsupported", None)
    sizes = sorted(heads) if kind == "attention" and heads else [None]
    reasons = (check(device, dtype, size) for size in sizes) if check else ()
    return next((reason for reason in reasons if reason), None)


def choose(
    kind: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    heads: frozenset[int] = NO_HEADS,
) -> str:
    """Return the backend for an operation: `name` itself, or for "auto" the best that can run.

    kind: the operation, "attention" or "group_norm". heads: the head sizes that attention must
    support. Raises InputError if `name` does not exist or cannot run.
    """
    return candidates(kind, name, device, dtype, heads)[0]


def head_sizes(network: nn.Module) -> frozenset[int]:
    """Return the head sizes (channels per head) of all diffusers attention layers in `network`.

    An attention backend must support them.
    """
    return frozenset(
        m.inner_dim // m.heads for m in network.modules() if isinstance(m, Attention) and m.heads
    )


class Backends:
    """What computes attention and GroupNorm in one model's UNet and autoencoder.

      unet, vae               diffusers networks; their attention processors are replaced
      attention, group_norm   names of the backends that a request gets if it chooses none ("sdpa",
                              "triton"), or "auto", the fastest that can run

    Raises InputError if a backend does not exist or cannot run.
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
        for kind, name in self.names.items():
            self.candidates(kind, name)

    def open_session(
        self, attention: str | None = None, group_norm: str | None = None
    ) -> BackendSession:
        """Return the backends with which one request draws, as a BackendSession.

        attention, group_norm: names that the request chose, or "auto"; None stands for the model's
        own choice. Raises InputError if a backend does not exist or cannot run.
        """
        wanted = {"attention": attention, "group_norm": group_norm}
        names = {k: v or self.names[k] for k, v in wanted.items()}
        choices = {k: (v, self.candidates(k, v)) for k, v in names.items()}
        unchecked = (
            trust.is_unchecked(self.unsupported_reason(kind, other))
            for kind, name in names.items()
            if name == "auto" or KINDS[kind].table[name].combines
            for other in KINDS[kind].table
        )
        if any(unchecked):
            trust.notice(self.device, self.dtype, self.heads)
        return BackendSession(self, choices)

    def candidates(self, kind: str, name: str) -> tuple[str, ...]:
        """Return the names of the backends to try for one operation of this model, best first.

        If one fails while it runs, the next is tried. kind: the operation, "attention" or
        "group_norm". name: one backend, which is returned alone, or "auto", for which all that can
        run are returned. Raises InputError if the backend `name` does not exist or cannot run.
        """
        return candidates(kind, name, self.device, self.dtype, self.heads)

    def unsupported_reason(self, kind: str, name: str) -> str | None:
        """Return in one sentence why the backend `name` cannot run this model, or None if it can.

        kind: the operation that it computes, "attention" or "group_norm".
        """
        return unsupported_reason(kind, name, self.device, self.dtype, self.heads)

    def install(self, attention: str, group_norm: str) -> None:
        """Make the UNet and the autoencoder compute with these two backends from now on.

        The autoencoder uses "sdpa" if `attention` does not support its head size. The caller holds
        the model's lock, as the networks are changed.
        """
        self.processor.name = attention
        # xformers and our kernels do not support the autoencoder's head size of 512.
        wide = self.vae_heads and unsupported_reason(
            "attention", attention, self.device, torch.float32, self.vae_heads
        )
        self.vae_processor.name = "sdpa" if wide else attention
        if group_norm != self.group_norm:
            for network in self.networks:
                swap_group_norm(network, group_norm)
            self.group_norm = group_norm


class BackendSession:
    """The backends with which one request draws, and what to try next if one fails.

    If a kernel fails and its backend was chosen by "auto", `call` goes on with the next backend
    that can run. The backend "per_shape", which calls the fastest other one for each shape, keeps
    to its choices during the request and, if one of them fails, goes on with the next for that
    shape.
    """

    def __init__(self, backends: Backends, choices: dict[str, tuple[str, tuple[str, ...]]]):
        """Store which backends the request may use; nothing is installed before `call`.

        backends: the model's, into which `call` installs the chosen ones. choices: a dict from
        "attention" and "group_norm" to a pair (name, candidates): what the request asked for, one
        backend or "auto", and the names of the backends to try, in this order.
        """
        self._backends, self._choices = backends, choices
        self._per_shape: dict[Shape, str] = {}  # what "per_shape" chose
        self.vae_attention: str | None = None  # the backend that the autoencoder used

    @property
    def attention(self) -> str:
        """Name of the attention backend that the request uses now, such as "sdpa"."""
        return self._choices["attention"][1][0]

    @property
    def group_norm(self) -> str:
        """Name of the GroupNorm backend that the request uses now, "triton" or "torch"."""
        return self._choices["group_norm"][1][0]

    def call(self, function: Callable[[], T]) -> T:
        """Call `function`, which runs the networks, with the session's backends; return its result.

        The caller holds the model's lock. If a kernel fails and its backend was chosen by "auto" or
        by "per_shape" (the fastest for each shape), the next backend is taken and `function` is
        called again. Raises InputError if the backend was asked for by name, or if none is left.
        """
        while True:
            self._backends.install(self.attention, self.group_norm)
            self.vae_attention = self._backends.vae_processor.name
            try:
                with fixed_choices(self._per_shape):
                    return function()
            except KernelFailed as failure:
                self._handle(failure)

    def _handle(self, failure: KernelFailed) -> None:
        """Exclude a backend that failed for the rest of this process and choose another instead.

        Raises InputError if the user asked for the one that failed, or if none is left.
        """
        known = (failure.kind, failure.backend) in BLACKLIST
        blacklist(failure)
        self._per_shape.clear()
        kind = next(k for k, v in KINDS.items() if v.name == failure.kind)
        name, (used, *rest) = self._choices[kind]
        if failure.backend != used and KINDS[kind].table[used].combines and not known:
            return  # it called the backend that failed, and now calls another
        left = tuple(n for n in rest if (failure.kind, n) not in BLACKLIST)
        if name != "auto" or not left:
            raise InputError(f"{failure}.") from None
        self._choices[kind] = name, left
