"""The attention processor that makes diffusers' UNet and autoencoder use a backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from .attention_math import softmax_weights
from .failures import wrap_kernel_errors
from .table import ATTENTION, Backend

AttentionHook = Callable[[torch.Tensor], None]
MAPS_BYTES = 1 << 26  # of softmax weights at once, in addition to the backend's own memory


def run_with_maps(
    backend: Backend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, last: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention's output on `backend`, and its weights averaged over heads, to show as maps.

    q (B, Tq, H, D), k and v (B, Tk, H, D). The output is shaped like q; the weights are (B, Tq,
    Tk), fp32, or with `last` only those of the last sample, (1, Tq, Tk).

    This project's Triton backend computes both at once if `kernels.check` found its kernel for that
    right on this GPU, without a gradient for the weights. For other backends, and if q needs a
    gradient, the weights are computed separately in plain PyTorch.
    """
    own = getattr(backend.code, "run_with_maps", None)
    if (
        own
        and k.shape[1] <= backend.code.MAX_KEYS
        and getattr(backend.code, "maps_supported", lambda q: True)(q)
        and not (torch.is_grad_enabled() and q.requires_grad)
    ):
        out, maps = own(q, k, v)
        return out, maps[-1:] if last else maps
    queries, keys = (q[-1:], k[-1:]) if last else (q, k)
    b, _, h, _ = queries.shape
    rows = max(1, MAPS_BYTES // (4 * b * h * keys.shape[1]))
    parts = [softmax_weights(part, keys).mean(1) for part in queries.split(rows, 1)]
    return backend.run(q, k, v), parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class AttentionProcessor:
    """A diffusers attention processor that runs self and cross attention on one backend.

    name: the backend, such as "sdpa"; assign another to change it. attention_hook: None or a
    function, called for every cross attention with the weights averaged over heads, (B, Tq, Tk),
    fp32, or, if it has an attribute `last` that is true, with those of the last sample only, (1,
    Tq, Tk). Raises KernelFailed if the backend's kernel fails.
    """

    def __init__(self, name: str):
        self.name = name
        self.attention_hook: AttentionHook | None = None

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        attention_hook: AttentionHook | None = None,
    ) -> torch.Tensor:
        """Compute attention with the processor's backend; pass the attention weights to a hook.

        Returns the output, shaped like q. q (B, Tq, H, D), k and v (B, Tk, H, D). attention_hook: a
        function that is called with the softmax's weights averaged over heads, (B, Tq, Tk), fp32;
        if its attribute `last` is true, with those of the last sample alone, (1, Tq, Tk). None: no
        weights are computed.
        """
        name, backend = self.name, ATTENTION[self.name]
        if backend.combines:
            name = backend.code.choose(q, k)
            backend = ATTENTION[name]
        guard = (
            wrap_kernel_errors("attention", name, q)
            if backend.may_fail
            else contextlib.nullcontext()
        )
        with guard:
            if attention_hook is None:
                return backend.run(q, k, v)
            out, maps = run_with_maps(backend, q, k, v, last=getattr(attention_hook, "last", False))
        attention_hook(maps)
        return out

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        if attention_mask is not None:
            raise NotImplementedError("Stable Diffusion's UNet has no attention with a mask.")
        residual = hidden_states
        shape = hidden_states.shape
        if hidden_states.ndim == 4:  # the VAE's: (B, C, H, W)
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            source = attn.norm_encoder_hidden_states(source)
        heads = attn.heads
        q = attn.to_q(hidden_states).unflatten(-1, (heads, -1))  # (B, T, H, D)
        k = attn.to_k(source).unflatten(-1, (heads, -1))
        v = attn.to_v(source).unflatten(-1, (heads, -1))
        attention_hook = self.attention_hook if encoder_hidden_states is not None else None
        out = self.attend(q, k, v, attention_hook).flatten(2)
        out = attn.to_out[1](attn.to_out[0](out))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor
