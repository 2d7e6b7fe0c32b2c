"""All kernels in one table: what `kernels.compile`, `check`, `bench` and the tests know of each.

A new kernel is one file and one row of KERNELS. A row names functions as "module:function"; they
are imported when they are needed, so that this module imports neither torch nor triton. The fields
of a row that name functions, and what these functions take and return:

  function(**inputs)                        the public function: a tensor or a tuple of tensors
  reference(**inputs)                       the same in plain PyTorch, for any floating dtype
  make_inputs(shape, dtype, device, seed)   iterator of the keyword arguments (dict) of each call
  launch_on_meta(shape, dtype, mode)        call the custom op of `mode` on tensors without
                                            memory, so that `kernels.compile` records its launches
  check_configurations(shape, dtype, mode, device, every)
                                            iterator of (place, configuration, configurations to
                                            force by place): see `kernels.verdict` for places;
                                            `every`: all that can be chosen, not only the shape's
  tuning_jobs(shapes, dtype)                iterator of TuningJob
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

from . import shapes
from .shapes import Shape


class TuningJob(NamedTuple):
    """A job of the tuner: to find the fastest of some configurations for one call of a kernel.

    key           name under which the fastest is stored in the GPU's file in kernels/tuned
    place         name of the kernel to time, with head size or memory layout and dtype, such as
                  "attention/forward/d40/float16"; under this name `kernels.verdict.force` makes it
                  run with a candidate
    candidates    the configurations to try, such as those of `combinations`
    shape, mode   the call to time: the kernel's function at this shape, "forward" or "backward"
    """

    key: str
    place: str
    candidates: Sequence[dict[str, int]]
    shape: Shape
    mode: str


def combinations(**choices: tuple[int, ...]) -> list[dict[str, int]]:
    """Return every combination of values as a configuration to try, a dict from field to value.

    combinations(M=(16, 32), num_warps=(4, 8)) gives four dicts; the first is {"M": 16, "num_warps":
    4}.
    """
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


@dataclass(frozen=True)
class Kernel:
    """A kernel of this project, a row of KERNELS: what benchmark, checks and tests know of it.

    name             its key in KERNELS, also used on the command line
    label, marker    its name and its matplotlib marker in plots
    bench            module whose rows(device, dtype, modes, seconds) times it
    modes            "forward", or "forward" and "backward": what is checked and measured
    shapes           shapes from `kernels.shapes` for a GPU
    small_shapes     shapes for Triton's interpreter on a CPU
    matmul_kernels   names of its Triton kernels that must use the GPU's matrix units

    The others are names of functions, "module:function":
    function               the public function, such as "kernels.attention:attention"
    reference              the same in plain PyTorch
    make_inputs            (shape, dtype, device, seed) -> iterator of each call's keyword arguments
    launch_on_meta         (shape, dtype, mode): call the op on tensors without memory, to record it
    check_configurations   (shape, dtype, mode, device, every) -> iterator of what to check
    tuning_jobs            (shapes, dtype) -> iterator of TuningJob
    """

    name: str
    label: str
    marker: str
    function: str
    reference: str
    make_inputs: str
    launch_on_meta: str
    check_configurations: str
    tuning_jobs: str
    bench: str
    modes: tuple[str, ...]
    shapes: tuple[Shape, ...]
    small_shapes: tuple[Shape, ...]
    matmul_kernels: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Name of the module or package that holds the kernel, such as "kernels.attention"."""
        return self.function.partition(":")[0]


def load(name: str) -> Callable[..., Any]:
    """Import and return the function that a row of KERNELS names as "module:function"."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            name="attention",
            label="attention",
            marker="o",
            function="kernels.attention:attention",
            reference="kernels.attention.reference:reference_by_head",
            make_inputs="kernels.attention.cases:make_inputs",
            launch_on_meta="kernels.attention.cases:launch_on_meta",
            check_configurations="kernels.attention.cases:check_configurations",
            tuning_jobs="kernels.attention.cases:tuning_jobs",
            bench="kernels.bench.attention",
            modes=("forward", "backward"),
            shapes=shapes.ATTENTION,
            small_shapes=shapes.SMALL_ATTENTION,
            matmul_kernels=("forward_kernel", "dkv_kernel", "dq_kernel"),
        ),
        Kernel(
            name="word_attention",
            label="word maps",
            marker="^",
            function="kernels.word_attention:word_attention",
            reference="kernels.word_attention:reference",
            make_inputs="kernels.attention.cases:make_inputs",
            launch_on_meta="kernels.word_attention:launch_on_meta",
            check_configurations="kernels.word_attention:check_configurations",
            tuning_jobs="kernels.word_attention:tuning_jobs",
            bench="kernels.bench.word_attention",
            modes=("forward",),  # backward is attention's own
            shapes=shapes.WORD_ATTENTION,
            small_shapes=shapes.SMALL_WORD_ATTENTION,
            matmul_kernels=("word_kernel",),
        ),
        Kernel(
            name="group_norm",
            label="GroupNorm",
            marker="s",
            function="kernels.group_norm:group_norm",
            reference="kernels.group_norm:reference",
            make_inputs="kernels.group_norm.cases:make_inputs",
            launch_on_meta="kernels.group_norm.cases:launch_on_meta",
            check_configurations="kernels.group_norm.cases:check_configurations",
            tuning_jobs="kernels.group_norm.cases:tuning_jobs",
            bench="kernels.bench.group_norm",
            modes=("forward", "backward"),
            shapes=shapes.GROUP_NORM,
            small_shapes=shapes.SMALL_GROUP_NORM,
        ),
    )
}
