"""Functions that the registry's row for GroupNorm names: inputs, recorded launches and tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..inputs import normal_tensors
from ..registry import TuningJob, combinations
from ..shapes import GROUPS, GroupNormShape, Norm
from ..verdict import Config
from . import group_norm_backward_op, group_norm_op
from .tiling import LANES, Plan, key, place


def make_inputs(
    shape: GroupNormShape, dtype: torch.dtype, device: str | torch.device, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield keyword arguments for `group_norm` with random values, for each layer of a shape.

    For checks and measurements. A layer whose `times` is 5 (the network has five of them) is
    yielded five times, with new values. Values are standard normal and depend on `seed`.
    """
    make = normal_tensors(dtype, device, seed)
    layout = torch.channels_last if shape.channels_last else torch.contiguous_format
    n = shape.batch
    for norm in shape.norms:
        for _ in range(norm.times):
            yield {
                "x": make(n, norm.channels, norm.side, norm.side).to(memory_format=layout),
                "groups": GROUPS,
                "weight": make(norm.channels),
                "bias": make(norm.channels),
                "eps": 1e-5,
                "silu": norm.silu,
                "shift": make(n, norm.channels) if norm.shift else None,
            }


def launch_on_meta(shape: GroupNormShape, dtype: torch.dtype, mode: str) -> None:
    """Call GroupNorm's op on tensors of the device "meta", to record its Triton launches.

    Call this only inside `kernels.recorder.recording()`: there a launch is not run but recorded, so
    that it can be compiled without a GPU. shape: must have exactly one layer; a layer of the UNet
    also gets a timestep embedding to add, a layer of the autoencoder gets none. mode: "forward" or
    "backward".
    """
    (norm,) = shape.norms
    shape = shape._replace(norms=(norm._replace(shift=shape.model != "VAE"),))
    (inputs,) = make_inputs(shape, dtype, "meta")
    x, groups, weight, bias, eps, silu, shift = inputs.values()
    if mode == "forward":
        group_norm_op._init_fn(x, groups, weight, bias, eps, silu, shift)
        return
    stats = torch.empty((shape.batch, groups, 3), device="meta")
    dy = torch.empty_like(x)
    group_norm_backward_op._init_fn(x, groups, weight, bias, silu, shift, stats, dy)


def check_configurations(
    shape: GroupNormShape, dtype: torch.dtype, mode: str, device: torch.device, every: bool
) -> Iterator[tuple[str, Config, dict[str, Config]]]:
    """Yield the configurations with which `python -m kernels.check` runs GroupNorm at this shape.

    In mode "forward" they are {"one_launch": False} (three launches) and, if the groups are small
    enough, {"one_launch": True}; in "backward" {}, as there is no choice. Each item is (place,
    configuration, forced): place is the name under which the result is stored, such as
    "group_norm/forward/NHWC/float16"; forced is a dict from place to configuration with what the
    launch must use. `every` is not used.
    """
    where = place(mode, shape.channels_last, dtype)
    if mode == "backward":
        yield where, {}, {}
        return
    partials = [
        Plan.of(inputs["x"], GROUPS).tiles.partials for inputs in make_inputs(shape, dtype, "meta")
    ]
    for one in (False, True) if max(partials) <= LANES else (False,):
        yield where, {"one_launch": one}, {where: {"one_launch": one}}


def tuning_jobs(shapes: Sequence[GroupNormShape], dtype: torch.dtype) -> Iterator[TuningJob]:
    """Yield the tuner's jobs for GroupNorm, each to find whether one launch is faster than three.

    There is a TuningJob for each batch size, layer size and memory layout of `shapes`. Left out are
    layers whose groups are too large for one launch, in which a program computes whole groups.
    """
    sizes = {(s.batch, norm.channels, norm.side): s for s in shapes for norm in s.norms}
    for (_, channels, side), shape in sorted(sizes.items(), key=lambda item: item[0]):
        norm = Norm(channels, side, shift=shape.model != "VAE", silu=True)
        for channels_last in (False, True):
            layer = shape._replace(norms=(norm,), channels_last=channels_last)
            (inputs,) = make_inputs(layer, dtype, "meta")
            plan = Plan.of(inputs["x"], GROUPS)
            if plan.tiles.partials <= LANES:
                candidates = combinations(one_launch=(True, False))
                where = place("forward", channels_last, dtype)
                yield TuningJob(key(plan), where, candidates, layer, "forward")
