"""Attention in plain PyTorch: the specification that the kernels are tested against."""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(D)) v in plain PyTorch, with which the kernels are compared.

    q (B, Tq, H, D), k and v (B, Tk, H, D); the result is (B, Tq, H, D), in the dtype of the inputs.
    """
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


def reference_by_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(D)) v in plain PyTorch, one head at a time to save memory.

    q (B, Tq, H, D), k and v (B, Tk, H, D); the result is (B, Tq, H, D). Only the scores of one
    head, (B, 1, Tq, Tk), exist at once; the backward pass computes them again.
    """
    heads = [
        checkpoint(reference, *(x[:, :, i : i + 1] for x in (q, k, v)), use_reentrant=False)
        for i in range(q.shape[2])
    ]
    return torch.cat(heads, 2)
