"""The attention backend "sdpa": PyTorch's scaled_dot_product_attention.

PyTorch chooses the kernel (flash, memory-efficient, cuDNN or plain) by itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return None: PyTorch's attention, the backend "sdpa", runs on every device."""
    return None


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return PyTorch's SDPA of q (B, Tq, H, D) to k and v (B, Tk, H, D), shaped like q."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
