"""GroupNorm with the timestep embedding added before and SiLU after it, in Triton, with gradients.

A ResBlock of a UNet adds the timestep embedding per sample and channel, then normalizes, then
applies SiLU: three passes over memory that are one here. Contiguous and channels-last tensors are
both read without a copy.

Statistics. Each group is cut into tiles, whose size depends on the shape alone. So that no large
mean is ever rounded away, values are taken relative to a pivot, the group's first value, and the
timestep embedding (`temb_bias`) relative to that of the group's first channel. Each tile gives a
partial: the mean of its values and the sum of their squared deviations from that mean. Partials are
merged in pairs, along a fixed tree (Chan, Golub, LeVeque 1979), so the result does not depend on
which program computed which partial.

Launches. A small group takes one launch (`fused_fwd_kernel`). A large one takes three
(`partials_kernel`, `merge_kernel`, `apply_kernel`), the first and the last of which split each
group among several programs. The choice between one and three depends on the shape, and on the
tuned configuration of the GPU; both give the same bits, whatever the rest of the batch and the
number of multiprocessors. There are no atomics, forward or backward.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ..launch import DTYPES, device_problem, dtype_name, dtype_names
from .backward import launch_backward
from .forward import launch_forward
from .reference import reference
from .tiling import MAX_CHANNELS, MAX_SPATIAL, flat_strides

__all__ = ["group_norm", "group_norm_backward_op", "group_norm_op", "reference", "unsupported"]


def _with_flat_strides(x: torch.Tensor) -> torch.Tensor:
    """Return x (N, C, *) as the kernels can read it, with one stride through all spatial positions.

    That is x itself if its spatial dimensions lie in order (contiguous, channels last), else a
    contiguous copy.
    """
    return x.contiguous() if flat_strides(x) is None else x


def _empty_dtemb_bias(x: torch.Tensor, temb_bias: torch.Tensor | None) -> torch.Tensor:
    """Return an uninitialized tensor for the gradient of temb_bias (N, C), the timestep embedding.

    It has temb_bias's shape and dtype; if temb_bias is None, the shape (0, C).
    """
    if temb_bias is None:
        return x.new_empty((0, x.shape[1]))
    return x.new_empty(temb_bias.shape, dtype=temb_bias.dtype)


@torch.library.custom_op("glassbox::group_norm", mutates_args=())
def group_norm_op(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    silu: bool,
    temb_bias: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return y, GroupNorm of x + temb_bias, then SiLU if `silu`; and stats for the backward pass.

    x (N, C, *), weight and bias (C,), temb_bias (N, C), the timestep embedding; nothing is checked.
    y has the shape and layout of x. stats (N, G, 3), fp32, holds for each of the G groups its pivot
    (first value), the mean of its values minus the pivot, and 1 / sqrt(variance + eps).
    """
    x = _with_flat_strides(x)
    y = torch.empty_like(x)
    stats = torch.empty((x.shape[0], groups, 3), dtype=torch.float32, device=x.device)
    if x.numel() == 0:
        return y, stats.zero_()
    launch_forward(x, groups, weight, bias, eps, silu, temb_bias, y, stats)
    return y, stats


@group_norm_op.register_fake
def _(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    silu: bool,
    temb_bias: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    x = _with_flat_strides(x)
    return torch.empty_like(x), x.new_empty((x.shape[0], groups, 3), dtype=torch.float32)


@torch.library.custom_op("glassbox::group_norm_backward", mutates_args=())
def group_norm_backward_op(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    silu: bool,
    temb_bias: torch.Tensor | None,
    stats: torch.Tensor,
    dy: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return GroupNorm's gradients (of x, weight, bias, temb_bias) for dy, that of its output.

    stats (N, G, 3): as `group_norm_op` returned them in the forward pass. temb_bias (N, C): the
    timestep embedding that was added to x; silu: whether SiLU followed. The gradient of x has its
    shape, dtype and layout; those of weight and bias are (C,) fp32, even if they are None; that of
    temb_bias is shaped like it, or (0, C) if it is None.
    """
    x, dy = _with_flat_strides(x), _with_flat_strides(dy)
    n, c = x.shape[:2]
    dx = torch.empty_like(x)
    totals = torch.empty((2, n, c), dtype=torch.float32, device=x.device)
    dtemb_bias = _empty_dtemb_bias(x, temb_bias)
    if x.numel() == 0:
        return dx, totals[1].zero_().sum(0), totals[0].zero_().sum(0), dtemb_bias.zero_()
    launch_backward(x, groups, weight, bias, silu, temb_bias, stats, dy, dx, totals, dtemb_bias)
    return dx, totals[1].sum(0), totals[0].sum(0), dtemb_bias


@group_norm_backward_op.register_fake
def _(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    silu: bool,
    temb_bias: torch.Tensor | None,
    stats: torch.Tensor,
    dy: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x = _with_flat_strides(x)
    per_channel = x.new_empty((x.shape[1],), dtype=torch.float32)
    dtemb_bias = _empty_dtemb_bias(x, temb_bias)
    return torch.empty_like(x), per_channel, torch.empty_like(per_channel), dtemb_bias


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, groups, weight, bias, _, silu, temb_bias = inputs
    ctx.save_for_backward(x, weight, bias, temb_bias, output[1])
    ctx.groups, ctx.silu = groups, silu
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dy: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
    x, weight, bias, temb_bias, stats = ctx.saved_tensors
    dx, dweight, dbias, dtemb_bias = group_norm_backward_op(
        x, ctx.groups, weight, bias, ctx.silu, temb_bias, stats, dy
    )
    return (
        dx,
        None,
        None if weight is None else dweight.to(weight.dtype),
        None if bias is None else dbias.to(bias.dtype),
        None,
        None,
        None if temb_bias is None else dtemb_bias,
    )


group_norm_op.register_autograd(_backward, setup_context=_save)


def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return in one sentence why the GroupNorm kernel can't run on `device`, or None if it can."""
    if dtype not in DTYPES:
        return f"the GroupNorm kernel takes {dtype_names()}, not {dtype_name(dtype)}."
    return device_problem(device, dtype)


def check(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    shift: torch.Tensor | None,
) -> None:
    """Raise ValueError, with a message of one sentence, unless `group_norm` takes these inputs.

    It takes x (N, C, *), with groups that divide C, weight and bias (C,) and shift (N, C) or None,
    in supported dtypes on one device that can run Triton, and a finite eps, 0 or more.
    """
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"x must be a tensor, not {type(x).__name__}.")
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (N, C, *).")
    if x.dtype not in DTYPES:
        raise ValueError(f"x has type {dtype_name(x.dtype)}; allowed are {dtype_names()}.")
    problem = device_problem(x.device, x.dtype)
    if problem:
        raise ValueError(f"x is on {x.device}: {problem}")
    n, c = x.shape[:2]
    spatial = math.prod(x.shape[2:])
    if spatial > MAX_SPATIAL:
        raise ValueError(f"x has {spatial} spatial positions; at most {MAX_SPATIAL} are allowed.")
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or c % groups:
        raise ValueError(f"groups is {groups}; it must divide x's {c} channels.")
    if c // groups > MAX_CHANNELS:
        raise ValueError(
            f"groups is {groups}, which makes {c // groups} channels a group of x's {c}; "
            f"at most {MAX_CHANNELS} are allowed."
        )
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps is {eps}; it must be finite and not negative.")
    for name, t, shape in (
        ("weight", weight, (c,)),
        ("bias", bias, (c,)),
        ("shift", shift, (n, c)),
    ):
        if t is None:
            continue
        if not isinstance(t, torch.Tensor):
            raise ValueError(f"{name} must be a tensor or None, not {type(t).__name__}.")
        if t.shape != shape:
            raise ValueError(f"{name} has shape {tuple(t.shape)}; with this x it must be {shape}.")
        if t.dtype not in DTYPES:
            raise ValueError(f"{name} has type {dtype_name(t.dtype)}; allowed are {dtype_names()}.")
        if t.device != x.device:
            raise ValueError(f"{name} is on {t.device}, but x is on {x.device}.")


def group_norm(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    *,
    silu: bool = False,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return GroupNorm of x + shift, followed by SiLU if `silu` is true; differentiable.

    x (N, C, *), fp16, bf16 or fp32, on a CUDA or ROCm device. weight (C,), bias (C,) and shift (N,
    C), the timestep embedding that a ResBlock adds, have any of these dtypes; None leaves them out.
    groups divides C. The result has the dtype and layout of x; x is copied only if it is neither
    contiguous nor channels last. Sums and all arithmetic are fp32, also under autocast. Results and
    gradients have the same bits every time. Raises ValueError for any other input.

    Wu and He, arXiv 1803.08494; SiLU: Elfwing et al., arXiv 1702.03118.
    """
    check(x, groups, weight, bias, eps, shift)
    weight, bias = (t if t is None else t.contiguous() for t in (weight, bias))
    return group_norm_op(x, groups, weight, bias, float(eps), silu, shift)[0]
