"""Functions that the registry's rows for attention name: inputs, recorded launches and tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..inputs import normal_tensors
from ..launch import multiprocessors, tuned_config
from ..registry import TuningJob, combinations
from ..shapes import AttentionShape
from ..verdict import Config
from . import attention_backward_op, attention_op
from .tiling import choosable, conservative, heuristic, is_unsafe, key, place, unique

# Configurations to try. On sm_90 Triton computes products of 64 or more rows with HGMMA. With
# num_stages = 1 these gave wrong results or illegal memory accesses on an H200 (triton 3.6), so 64
# and more rows have at least two stages. The rows are M in forward and dq, N in dkv.
CHOICES = {
    "forward": combinations(M=(64, 128), N=(32, 64, 128), num_warps=(4, 8), num_stages=(2, 3, 4)),
    "dkv": [
        *combinations(M=(16, 32, 64), N=(32,), num_warps=(4, 8), num_stages=(1, 2, 3)),
        *combinations(M=(16, 32, 64), N=(64, 128), num_warps=(4, 8), num_stages=(2, 3)),
    ],
    "dq": [
        *combinations(M=(32,), N=(16, 32, 64), num_warps=(4, 8), num_stages=(1, 2, 3)),
        *combinations(M=(64, 128), N=(16, 32, 64), num_warps=(4, 8), num_stages=(2, 3)),
    ],
}


def make_inputs(
    shape: AttentionShape, dtype: torch.dtype, device: str | torch.device, seed: int = 0
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield one dict with random tensors q, k and v of this shape, for a check or a measurement.

    The values are standard normal and depend on `seed`. On the device "meta" they have no values.
    An iterator, as other kernels need several calls for one shape.
    """
    make = normal_tensors(dtype, device, seed)
    heads = shape.heads, shape.head_size
    yield {
        "q": make(shape.batch, shape.queries, *heads),
        "k": make(shape.batch, shape.keys, *heads),
        "v": make(shape.batch, shape.keys, *heads),
    }


def launch_on_meta(shape: AttentionShape, dtype: torch.dtype, mode: str) -> None:
    """Call attention's op on tensors without memory, so that its launches can be recorded.

    mode: "forward" or "backward". Call it only inside `kernels.recorder.recording()`, where a
    launch is recorded, to be compiled without a GPU, instead of run.
    """
    (inputs,) = make_inputs(shape, dtype, "meta")
    q, k, v = inputs.values()
    if mode == "forward":
        attention_op._init_fn(q, k, v)
        return
    lse2 = torch.empty((shape.batch, shape.heads, shape.queries), device="meta")
    attention_backward_op._init_fn(q, k, v, torch.empty_like(q), lse2, torch.empty_like(q))


def check_configurations(
    shape: AttentionShape, dtype: torch.dtype, mode: str, device: torch.device, every: bool
) -> Iterator[tuple[str, Config, dict[str, Config]]]:
    """Yield the configurations with which `python -m kernels.check` tests attention at one shape.

    A configuration is a dict such as {"M": 64, "N": 32, "num_warps": 4, "num_stages": 2}. Tested
    are the one tuned for the GPU, if there is one, the default one and the smallest one. If `every`
    is true and the shape's `model` is "odd", the defaults for all other lengths are tested too.
    mode: "forward" tests the forward kernel; "backward" tests the kernel for dk and dv, then that
    for dq. The kernels that are not being tested run with the smallest configuration.

    Each item is (place, configuration, forced). place: the name under which the result is stored,
    such as "attention/forward/d40/float16". forced: from place to configuration, for each of the
    three kernels what it must run with during this test.
    """
    d, processors = shape.head_size, multiprocessors(device)
    places = {kind: place(kind, d, dtype) for kind in ("forward", "dkv", "dq")}
    for kind in ("forward",) if mode == "forward" else ("dkv", "dq"):
        lengths = shape.queries, shape.keys
        usual = heuristic(kind, d, *lengths, dtype, shape.batch * shape.heads, processors)
        tuned = tuned_config(device, key(kind, d, *lengths, dtype), usual)
        configs = [usual, conservative()]
        if tuned and not is_unsafe(
            tuned["N" if kind == "dkv" else "M"], tuned["num_stages"], dtype
        ):
            configs.insert(0, tuned)
        if every and shape.model == "odd":
            configs += choosable(kind, d, dtype, processors)
        for config in unique(configs):
            yield (
                places[kind],
                config,
                dict.fromkeys(places.values(), conservative()) | {places[kind]: config},
            )


def tuning_jobs(shapes: Sequence[AttentionShape], dtype: torch.dtype) -> Iterator[TuningJob]:
    """Yield three jobs for the tuner for each shape: kernels of forward, of dk and dv, and of dq.

    A TuningJob has the configurations (block sizes, warps, stages) to time at the shape.
    """
    for shape in shapes:
        for kind, mode in (("forward", "forward"), ("dkv", "backward"), ("dq", "backward")):
            name = key(kind, shape.head_size, shape.queries, shape.keys, dtype)
            where = place(kind, shape.head_size, dtype)
            yield TuningJob(name, where, CHOICES[kind], shape, mode)
