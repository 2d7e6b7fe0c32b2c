"""The attention backend "math": softmax(q k^T / sqrt(D)) v in plain PyTorch, as a reference."""

from __future__ import annotations

import torch

MAX_BYTES = 1 << 29  # of softmax weights at once; all of a large picture would not fit in memory


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return None: plain PyTorch attention, the backend "math", runs on every device."""
    return None


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return plain PyTorch's attention of q (B, Tq, H, D) to k and v (B, Tk, H, D), shaped like q.

    Queries are processed in chunks, so that the softmax weights take at most about 512 MiB.
    """
    b, _, h, _ = q.shape
    rows = max(1, MAX_BYTES // (4 * b * h * max(1, k.shape[1])))
    parts = [
        (softmax_weights(part, k).to(q.dtype) @ v.transpose(1, 2)).transpose(1, 2)
        for part in q.split(rows, 1)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def softmax_weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return attention's weights softmax(q k^T / sqrt(D)), (B, H, Tq, Tk), in plain PyTorch.

    q (B, Tq, H, D), k (B, Tk, H, D). The result and all arithmetic are fp32, as the scores could
    overflow in fp16.
    """
    q, k = q.transpose(1, 2).float() * q.shape[-1] ** -0.5, k.transpose(1, 2).float()
    return (q @ k.transpose(-1, -2)).float().softmax(-1)
