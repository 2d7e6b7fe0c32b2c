"""Who can run attention and GroupNorm here, and if not, why.

Each backend has `unsupported(device, dtype) -> str | None`. `auto` takes the first of AUTO that can
run on the device, in order of measured speed. A backend asked for by name that cannot run is an
InputError that says why, never a silent swap.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from .errors import InputError, closest


class SdpaAttention:
    """PyTorch's scaled_dot_product_attention, which chooses its own kernel."""

    note = "PyTorch's fused attention"

    @staticmethod
    def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    @staticmethod
    def run(q, k, v):
        """q (B, H, Tq, D), k and v (B, H, Tk, D) to (B, H, Tq, D)."""
        return F.scaled_dot_product_attention(q, k, v)


class MathAttention:
    """softmax(q k^T / sqrt(D)) v, written out: the reference."""

    note = "plain matrix products, the reference"

    @staticmethod
    def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    @staticmethod
    def run(q, k, v):
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return scores.float().softmax(-1).to(q.dtype) @ v


class XformersAttention:
    """xformers' memory-efficient attention."""

    note = "xformers' memory-efficient attention"

    @staticmethod
    def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
        return _probe_xformers(str(device), dtype)

    @staticmethod
    def run(q, k, v):
        from xformers.ops import memory_efficient_attention

        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return memory_efficient_attention(q, k, v).transpose(1, 2)


class TorchGroupNorm:
    """PyTorch's own GroupNorm."""

    note = "PyTorch's GroupNorm"

    @staticmethod
    def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
        return None


ATTENTION = {"sdpa": SdpaAttention, "xformers": XformersAttention, "math": MathAttention}
GROUP_NORM = {"torch": TorchGroupNorm}
AUTO_ATTENTION = ("sdpa", "xformers", "math")
AUTO_GROUP_NORM = ("torch",)


@lru_cache
def _probe_xformers(device: str, dtype: torch.dtype) -> str | None:
    """One real tiny call; None where it works, else the reason in one sentence."""
    quiet = logging.getLogger("xformers")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            from xformers.ops import memory_efficient_attention
        q = torch.zeros((1, 8, 1, 40), device=device, dtype=dtype)
        memory_efficient_attention(q, q, q)
    except ImportError:
        return "xformers is not installed here."
    except NotImplementedError:
        return f"xformers has no attention operator for {device} tensors of type {_short(dtype)}."
    except Exception as error:  # a broken build fails in ways of its own
        return f"xformers failed on {device}: {str(error).splitlines()[0]}"
    finally:
        quiet.setLevel(level)
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _choose(kind: str, table: dict, auto: tuple, name: str, device, dtype) -> str:
    if name == "auto":
        return next(n for n in auto if table[n].unsupported(device, dtype) is None)
    if name not in table:
        raise InputError(
            f"There is no {kind} backend {name!r}; there is {closest(name, ['auto', *table])}."
        )
    reason = table[name].unsupported(device, dtype)
    if reason:
        raise InputError(f"The {kind} backend {name} cannot run here: {reason}")
    return name


def choose_attention(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The attention backend that `name` ("auto" or of ATTENTION) means here."""
    return _choose("attention", ATTENTION, AUTO_ATTENTION, name, device, dtype)


def choose_group_norm(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The GroupNorm backend that `name` ("auto" or of GROUP_NORM) means here."""
    return _choose("GroupNorm", GROUP_NORM, AUTO_GROUP_NORM, name, device, dtype)


@dataclass
class AttentionProcessor:
    """diffusers' hook: self and cross attention of a UNet or VAE on one backend."""

    backend: type

    def __call__(
        self,
        attn,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        **_,
    ) -> torch.Tensor:
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
        q = attn.to_q(hidden_states).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, H, T, D)
        k = attn.to_k(source).unflatten(-1, (heads, -1)).transpose(1, 2)
        v = attn.to_v(source).unflatten(-1, (heads, -1)).transpose(1, 2)
        out = self.backend.run(q, k, v).transpose(1, 2).flatten(2)
        out = attn.to_out[1](attn.to_out[0](out))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor


def install_attention(unet, vae, name: str) -> None:
    """Run every attention layer of `unet` and `vae` on the backend `name`.

    xformers has no operator for the VAE's single head of 512; that one layer stays on SDPA.
    """
    unet.set_attn_processor(AttentionProcessor(ATTENTION[name]))
    wide = ATTENTION["sdpa"] if name == "xformers" else ATTENTION[name]
    vae.set_attn_processor(AttentionProcessor(wide))


def install_group_norm(unet, vae, name: str) -> None:
    """Run every GroupNorm of `unet` and `vae` on the backend `name`; torch is what they have."""
    if name != "torch":
        raise InputError(f"There is no GroupNorm backend {name!r}.")
