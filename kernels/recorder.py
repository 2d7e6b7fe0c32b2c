"""The launches of every kernel, recorded on tensors without memory and with no GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from .registry import KERNELS, Kernel, load

POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
}


@dataclass(frozen=True)
class Case:
    """A kernel of the registry at one shape and mode."""

    kernel: Kernel
    shape: Any
    mode: str

    @property
    def op(self) -> str:
        """The kernel's name in the registry."""
        return self.kernel.name

    @property
    def title(self) -> str:
        """The shape in words, for the table."""
        return self.shape.title

    def run(self, dtype: torch.dtype) -> None:
        """Run the op on tensors without memory; only inside `recording`."""
        load(self.kernel.launch_on_meta)(self.shape, dtype, self.mode)


@dataclass(frozen=True)
class Launch:
    """One Triton kernel with the arguments it would have been launched with."""

    kernel: Any  # a triton.JITFunction
    args: dict[str, Any]
    options: dict[str, int]


def cases() -> list[Case]:
    """Return every kernel of the registry at every shape that is to be compiled, in each mode."""
    return [
        Case(kernel, shape, mode)
        for kernel in KERNELS.values()
        for shape in kernel.shapes
        if shape.compiled
        for mode in kernel.modes
    ]


def is_kernel(name: str, value: object) -> bool:
    """Return whether an attribute of a module is a Triton kernel that is launched by itself."""
    return name.endswith("_kernel") and hasattr(value, "arg_names")


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Yield a list to which launches of the registry's kernels are added instead of being run."""
    log: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple) -> Callable[..., None]:
            def launch(*args: Any, **named: Any) -> None:
                given = dict(zip(self.kernel.arg_names, args, strict=False)) | named
                options = {k: given.pop(k) for k in ("num_warps", "num_stages") if k in given}
                log.append(Launch(self.kernel, given, options))

            return launch

    replaced = []
    for kernel in KERNELS.values():
        import_module(kernel.module)
        for module_name, module in list(sys.modules.items()):
            if f"{module_name}.".startswith(f"{kernel.module}."):  # the module, or one inside it
                replaced += [(module, n, v) for n, v in vars(module).items() if is_kernel(n, v)]
    for module, name, value in replaced:
        setattr(module, name, Recorder(value))
    try:
        yield log
    finally:
        for module, name, value in replaced:
            setattr(module, name, value)


def specialise(launch: Launch, target: str) -> tuple[dict, dict, dict]:
    """Return signature, constants and attributes as Triton derives them from a real launch."""
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
