"""Record the Triton launches of every kernel without a GPU and without running them.

The ops are called with tensors on PyTorch's "meta" device, which have a shape but no memory.
`kernels.compile` compiles the recorded launches.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from .launch import assume_capability
from .registry import KERNELS, Kernel, load
from .shapes import Shape

POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
}


@dataclass(frozen=True)
class Case:
    """A call whose Triton launches are to be recorded: a kernel of KERNELS, a shape and a mode.

    mode: "forward" or "backward".
    """

    kernel: Kernel
    shape: Shape
    mode: str

    @property
    def op(self) -> str:
        """The kernel's name, its key in KERNELS, such as "word_attention"."""
        return self.kernel.name

    @property
    def title(self) -> str:
        """The short name of the shape, such as "SD 1.5 4096x77 d40" (queries x keys, head size)."""
        return self.shape.title

    def run(self, dtype: torch.dtype) -> None:
        """Call the kernel's op on tensors without memory, so that its launches are recorded.

        Only inside a `with recording()` block, where launches are recorded instead of run.
        """
        load(self.kernel.launch_on_meta)(self.shape, dtype, self.mode)


@dataclass(frozen=True)
class Launch:
    """One recorded launch of a Triton kernel, which can be compiled without running it.

    kernel    the triton.JITFunction
    args      its arguments by name; tensors are on the device "meta"
    options   num_warps and num_stages, if the launch sets them
    """

    kernel: Any  # a triton.JITFunction
    args: dict[str, Any]
    options: dict[str, int]


def cases() -> list[Case]:
    """Return all kernel calls whose Triton launches are to be recorded and then compiled.

    There is a Case for each kernel of KERNELS, each of its shapes that is marked `compiled`, and
    each of its modes ("forward", "backward").
    """
    return [
        Case(kernel, shape, mode)
        for kernel in KERNELS.values()
        for shape in kernel.shapes
        if shape.compiled
        for mode in kernel.modes
    ]


def is_kernel(name: str, value: object) -> bool:
    """Return whether a module's attribute is a Triton kernel that Python launches: one to record.

    The names of such kernels end in "_kernel"; those of helpers that only kernels call do not.
    """
    return name.endswith("_kernel") and hasattr(value, "arg_names")


@contextmanager
def recording(target: str = "sm_90") -> Iterator[list[Launch]]:
    """Yield a list that collects the launches of the kernels of KERNELS, which then do not run.

    In the `with` block the Triton kernels are replaced by recorders; their block sizes are chosen
    as for the GPU `target`, "sm_90" or "gfx942".
    """
    log: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple) -> Callable[..., None]:
            def launch(*args: Any, **named: Any) -> None:
                by_name = dict(zip(self.kernel.arg_names, args, strict=False)) | named
                options = {k: by_name.pop(k) for k in ("num_warps", "num_stages") if k in by_name}
                log.append(Launch(self.kernel, by_name, options))

            return launch

    replaced = []
    for kernel in KERNELS.values():
        import_module(kernel.module)
        for module_name, module in list(sys.modules.items()):
            if f"{module_name}.".startswith(f"{kernel.module}."):  # the module, or one inside it
                replaced += [(module, n, v) for n, v in vars(module).items() if is_kernel(n, v)]
    for module, name, value in replaced:
        setattr(module, name, Recorder(value))
    capability = divmod(int(target[3:]), 10) if target.startswith("sm_") else (9, 4)
    try:
        with assume_capability(*capability):
            yield log
    finally:
        for module, name, value in replaced:
            setattr(module, name, value)


def specialise(
    launch: Launch, target: str
) -> tuple[dict[str, str], dict[tuple[int, ...], Any], dict[tuple[int, ...], list]]:
    """Return what Triton's compiler takes for a launch: (signature, constants, attributes).

    They are as Triton would derive them from the arguments of a real launch.
      signature    type of each argument by name: "*fp16", "i32", "constexpr"
      constants    values of constexpr arguments and of integers that are 1, by position (i,)
      attributes   what the compiler may assume, by position (i,): [["tt.divisibility", 16]]

    target: "sm_90" (NVIDIA) or "gfx942" (AMD). Tensors count as aligned to 16 bytes.
    """
    kernel, names = launch.kernel, launch.kernel.arg_names
    constant = {names[p.num] for p in kernel.params if p.is_constexpr}
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list] = {}
    for i, name in enumerate(names):
        value = launch.args[name]
        if name in constant or (isinstance(value, int) and value == 1):
            signature[name], constants[(i,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
            if target.startswith("gfx") and value.numel() * value.element_size() < 2**31:
                attributes[(i,)].append(["tt.pointer_range", 32])
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes
