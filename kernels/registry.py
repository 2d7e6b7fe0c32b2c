"""Every kernel, once: what `kernels.compile`, `check`, `bench`, `--tune` and the tests know of it.

A new kernel is one file and one row of KERNELS. Functions are named by "module:function" and
imported when they are needed, so this module imports no torch and no triton. What they take and
return:

    function(**inputs)                      the public function: a tensor or a tuple of tensors
    reference(**inputs)                     the same in plain PyTorch, for any floating type
    make_inputs(shape, dtype, device, seed) -> Iterator[dict]; a dict for each call at the shape
    launch_on_meta(shape, dtype, mode)      runs the custom op of `mode` on tensors without memory,
                                            so that `kernels.compile` can record its launches
    tuning_jobs(shapes, dtype, device)      -> Iterator[TuningJob]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from . import shapes


class TuningJob(NamedTuple):
    """One configuration to find: its key in the tuned file, the choices for each of its fields,
    and the call to time."""

    key: str
    choices: dict[str, tuple]
    call: Callable[[], object]


@dataclass(frozen=True)
class Kernel:
    """A row of KERNELS.

    label, marker: its name and its matplotlib marker in plots. modes: of "forward" and "backward",
    those that are checked and measured. shapes, small_shapes: from `kernels.shapes`, on a GPU and
    interpreted. matmul_kernels: names of those of its Triton kernels that must use the matrix unit.
    bench: a module with rows(device, dtype, modes, seconds), as kernels.bench.attention.
    """

    name: str
    label: str
    marker: str
    function: str
    reference: str
    make_inputs: str
    launch_on_meta: str
    tuning_jobs: str
    bench: str
    modes: tuple[str, ...]
    shapes: tuple[Any, ...]
    small_shapes: tuple[Any, ...]
    matmul_kernels: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The module or package of the kernel."""
        return self.function.partition(":")[0]


def load(name: str) -> Callable[..., Any]:
    """Import what a row names "module:function"."""
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
            tuning_jobs="kernels.group_norm.cases:tuning_jobs",
            bench="kernels.bench.group_norm",
            modes=("forward", "backward"),
            shapes=shapes.GROUP_NORM,
            small_shapes=shapes.SMALL_GROUP_NORM,
        ),
    )
}
