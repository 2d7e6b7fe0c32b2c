"""GroupNorm in plain PyTorch: the specification that the kernels are tested against."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def reference(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    *,
    silu: bool = False,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return GroupNorm of x (N, C, *) + shift (N, C), then SiLU if `silu`, in plain PyTorch.

    The kernels are compared with it. weight and bias are (C,). None leaves out shift, weight or
    bias. The result has the dtype of x.
    """
    if shift is not None:
        x = x + shift.reshape(*shift.shape, *(1,) * (x.ndim - 2))
    y = F.group_norm(x, groups, weight, bias, eps)
    return F.silu(y) if silu else y
