"""softmax(q k^T / sqrt(D)) v, written out: the reference."""

from __future__ import annotations

import torch

MAX_BYTES = 1 << 29  # of weights at once: a large picture's would not fit


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return None: it runs everywhere."""
    return None


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Compute attention, (B, Tq, H, D), some queries at a time."""
    b, _, h, _ = q.shape
    rows = max(1, MAX_BYTES // (4 * b * h * max(1, k.shape[1])))
    parts = [
        (softmax_weights(part, k).to(q.dtype) @ v.transpose(1, 2)).transpose(1, 2)
        for part in q.split(rows, 1)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def softmax_weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(D)), (B, H, Tq, Tk) fp32; scores in fp16 would overflow."""
    q, k = q.transpose(1, 2).float() * q.shape[-1] ** -0.5, k.transpose(1, 2).float()
    return (q @ k.transpose(-1, -2)).float().softmax(-1)
