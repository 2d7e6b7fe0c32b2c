"""The attention backend "cudnn": cuDNN's fused attention, as PyTorch calls it, and nothing else.

`torch.nn.attention.sdpa_kernel` could choose it too, but sets switches of the whole process: while
it is open, attention that another thread computes, such as a preview's autoencoder, is refused or
takes another kernel. So the operator behind it is called directly.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

from . import failures


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why cuDNN's attention cannot run on `device`, or None if it can.

    head_size: channels per head; None is checked as 64. For each head size one small call is tried
    the first time.
    """
    if device.type != "cuda" or torch.version.hip:
        where = "an AMD GPU" if device.type == "cuda" else device.type
        return f"cuDNN's attention needs an NVIDIA GPU, not {where}."
    return _probe(str(device), dtype, head_size or 64)


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return cuDNN's attention of q (B, Tq, H, D) to k and v (B, Tk, H, D), shaped like q."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    # Without a mask; the logarithms of the softmax's sums are for the backward pass alone.
    out = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, gradient)[0]
    return out.transpose(1, 2)


@lru_cache
def _probe(device: str, dtype: torch.dtype, head_size: int) -> str | None:
    """Try cuDNN's attention at a head size; return None if it works, else why not; cached.

    It works if PyTorch takes cuDNN for such heads and one small call is right. On ZeroGPU nothing
    is tried, as there is no GPU yet.
    """
    if failures.ON_ZERO_GPU:
        return None
    try:
        q = torch.linspace(-1, 1, 64 * head_size, device=device)
        q = q.to(dtype).reshape(1, 64, 1, head_size)
        heads = q.transpose(1, 2)
        parameters = torch.backends.cuda.SDPAParams(heads, heads, heads, None, 0.0, False, False)
        if not torch.backends.cuda.can_use_cudnn_attention(parameters):
            kind = str(dtype).removeprefix("torch.")
            return f"cuDNN has no attention on {device} for heads of {head_size} in {kind}."
        wide = heads.double()
        exact = F.scaled_dot_product_attention(wide, wide, wide)
        if not torch.allclose(run(q, q, q).transpose(1, 2).double(), exact, atol=0.02):
            return f"cuDNN's attention gave a wrong answer on {device}."
    except Exception as error:  # libraries and drivers raise errors of many types
        return f"cuDNN's attention failed on {device}: {failures.first_line(error)}"
    return None
