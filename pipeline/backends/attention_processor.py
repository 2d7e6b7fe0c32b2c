"""Attention backends, and the processor that puts one into diffusers' UNet and autoencoder.

A backend takes q (B, Tq, H, D), k and v (B, Tk, H, D) and says in a sentence what it can't do. One
that has `words` also returns how much each query looked at each key, averaged over heads.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F

from .failures import ON_ZERO_GPU, KernelFailed, blacklist, first_line, wrap_kernel_errors


class SdpaAttention:
    """PyTorch's scaled_dot_product_attention, which chooses its own kernel."""

    note = "PyTorch's fused attention"

    @staticmethod
    def unsupported(device: torch.device, dtype: torch.dtype, **_) -> str | None:
        return None

    @staticmethod
    def run(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class MathAttention:
    """softmax(q k^T / sqrt(D)) v, written out: the reference."""

    note = "plain matrix products, the reference"

    @staticmethod
    def unsupported(device: torch.device, dtype: torch.dtype, **_) -> str | None:
        return None

    @staticmethod
    def run(q, k, v):
        b, _, h, _ = q.shape
        rows = max(1, MATH_BYTES // (4 * b * h * max(1, k.shape[1])))
        parts = [
            (_weights(part, k).to(q.dtype) @ v.transpose(1, 2)).transpose(1, 2)
            for part in q.split(rows, 1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


MATH_BYTES = 1 << 29  # of weights at once: a large picture's would not fit
WORDS_BYTES = 1 << 26  # the same, beside what the backend itself needs


def _weights(q, k) -> torch.Tensor:
    """The softmax, written out: (B, H, Tq, Tk) fp32; scores in fp16 would overflow."""
    q, k = q.transpose(1, 2).float() * q.shape[-1] ** -0.5, k.transpose(1, 2).float()
    return (q @ k.transpose(-1, -2)).float().softmax(-1)


def run_with_words(
    backend: type, q, k, v, *, last: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `backend` gives, and the weights averaged over heads, (B, Tq, Tk) fp32; `last`: those of
    the batch's last alone, (1, Tq, Tk).

    Our kernel has them as a by-product, without a gradient. Beside any other backend, and where
    something learns from them, they are computed plainly: 77 keys are cheap, and the result keeps
    its bits whether the maps were asked for or not.
    """
    own = hasattr(backend, "words") and k.shape[1] <= backend.max_keys
    if own and not (torch.is_grad_enabled() and q.requires_grad):
        out, maps = backend.words(q, k, v)
        return out, maps[-1:] if last else maps
    queries, keys = (q[-1:], k[-1:]) if last else (q, k)
    b, _, h, _ = queries.shape
    rows = max(1, WORDS_BYTES // (4 * b * h * keys.shape[1]))
    parts = [_weights(part, keys).mean(1) for part in queries.split(rows, 1)]
    return backend.run(q, k, v), parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class XformersAttention:
    """xformers' memory-efficient attention."""

    note = "xformers' memory-efficient attention"

    @staticmethod
    def unsupported(
        device: torch.device, dtype: torch.dtype, head_size: int | None = None
    ) -> str | None:
        if head_size is not None and head_size > 256:
            return f"xformers has no operator for a head of {head_size}."
        return _probe_xformers(str(device), dtype)

    @staticmethod
    def run(q, k, v):
        from xformers.ops import memory_efficient_attention

        return memory_efficient_attention(q, k, v)


class TritonAttention:
    """This project's own kernels."""

    note = "this project's Triton kernels"

    @staticmethod
    def unsupported(
        device: torch.device, dtype: torch.dtype, head_size: int | None = None
    ) -> str | None:
        try:
            from kernels import attention
        except ImportError:
            return "triton is not installed here."
        return attention.unsupported(device, dtype, head_size) or _probe_triton(str(device), dtype)

    @staticmethod
    def run(q, k, v):
        from kernels.attention import attention

        return attention(q, k, v)

    max_keys = 128  # of `words`

    @staticmethod
    def words(q, k, v):
        from kernels.word_attention import word_attention

        return word_attention(q, k, v)


ATTENTION = {
    "triton": TritonAttention,
    "sdpa": SdpaAttention,
    "xformers": XformersAttention,
    "math": MathAttention,
}

KERNELS = ("triton", "xformers")  # those that may fail on an exotic GPU
NOTHING = contextlib.nullcontext()


@lru_cache
def _probe_xformers(device: str, dtype: torch.dtype) -> str | None:
    """One real tiny call; None where it works, else the reason in one sentence."""
    quiet = logging.getLogger("xformers")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            from xformers.ops import memory_efficient_attention
        if ON_ZERO_GPU:
            return None
        q = torch.zeros((1, 8, 1, 40), device=device, dtype=dtype)
        memory_efficient_attention(q, q, q)
    except ImportError:
        return "xformers is not installed here."
    except NotImplementedError:
        return f"xformers has no attention operator for {device} tensors of type {_short(dtype)}."
    except Exception as error:  # a broken build fails in ways of its own
        return f"xformers failed on {device}: {first_line(error)}"
    finally:
        quiet.setLevel(level)
    return None


@lru_cache
def _probe_triton(device: str, dtype: torch.dtype) -> str | None:
    """One real tiny call of each kernel; where one fails, a warning and the reason."""
    from kernels.attention import attention
    from kernels.word_attention import word_attention

    if ON_ZERO_GPU:
        return None
    q = torch.zeros((1, 16, 1, 40), device=device, dtype=dtype)
    try:
        with wrap_kernel_errors("attention", "triton", q):
            attention(q, q, q)
            word_attention(q, q, q)
    except KernelFailed as failure:
        blacklist(failure)
        return f"it failed at {failure.reason}"
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class AttentionProcessor:
    """diffusers' hook: self and cross attention of a UNet or autoencoder on the backend `name`.

    `attention_hook`, where set, is called with the maps of every cross attention:
    (B, Tq, Tk) fp32; (1, Tq, Tk) where its `last` says that the batch's last is enough. A kernel
    that fails raises KernelFailed.
    """

    def __init__(self, name: str):
        self.name = name
        self.attention_hook: Callable[[torch.Tensor], None] | None = None

    def attend(self, q, k, v, attention_hook=None):
        backend = ATTENTION[self.name]
        guard = wrap_kernel_errors("attention", self.name, q) if self.name in KERNELS else NOTHING
        with guard:
            if attention_hook is None:
                return backend.run(q, k, v)
            out, maps = run_with_words(
                backend, q, k, v, last=getattr(attention_hook, "last", False)
            )
        attention_hook(maps)
        return out

    def __call__(
        self,
        attn,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        **_,
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
