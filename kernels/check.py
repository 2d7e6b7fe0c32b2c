"""Compare every kernel with plain PyTorch in fp64 on new random inputs: `python -m kernels.check`.

The kernels of `kernels.registry` run at Stable Diffusion's shapes, or at small shapes if Triton
interprets them. Each kernel is checked in a process of its own: one that crashes (an illegal memory
access) is reported as failed, and the next one is still checked. How large an error may be depends
on the error that PyTorch makes in the same dtype, see `allowed_error`.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from .launch import DTYPES, INTERPRETED, device_problem, dtype_name
from .registry import KERNELS, Kernel, load
from .shapes import Shape

# Rounding error of a dtype, relative to the largest value of the result.
FLOOR = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
HEAD = ("kernel", "shape", "type", "mode", "error", "allowed", "")
WIDTHS = (14, 32, 9, 9, 9, 9, 0)


def allowed_error(theirs: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the largest absolute error that a kernel's result in `dtype` may have.

    Twice the error of PyTorch's result in that dtype (`theirs`) against the fp64 result (`exact`),
    plus the rounding error of `dtype` at the largest value of `exact`.
    """
    return (2 * max_error(theirs, exact) + FLOOR[dtype] * exact.abs().max()).item()


def max_error(result: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Return the largest absolute difference from `exact` (fp64), as a tensor with one value.

    It is NaN if any value is NaN.
    """
    return (result.double() - exact).abs().max()


def run(name: str, inputs: dict[str, Any], mode: str, seed: int) -> list[torch.Tensor]:
    """Call a function of the registry; return its outputs or the gradients of its inputs.

    name: "module:function". inputs: its keyword arguments. mode: "forward" returns the outputs,
    "backward" the gradients of the inputs that are tensors. The gradient of the output is standard
    normal, from `seed`, and rounded to fp16, so that it is the same for each dtype.
    """
    function = load(name)
    if mode == "forward":
        with torch.no_grad():
            out = function(**inputs)
        return list(out) if isinstance(out, tuple) else [out]
    inputs = {
        k: v.detach().requires_grad_() if isinstance(v, torch.Tensor) else v
        for k, v in inputs.items()
    }
    out = function(**inputs)
    generator = torch.Generator(out.device).manual_seed(seed + 1)
    gradient = torch.randn(out.shape, generator=generator, device=out.device).half().to(out)
    tensors = [v for v in inputs.values() if isinstance(v, torch.Tensor)]
    return list(torch.autograd.grad(out, tensors, gradient))


def check_once(kernel: Kernel, inputs: dict[str, Any], mode: str, seed: int) -> tuple[float, float]:
    """Return (error, allowed error) of one call, for the output with the worst ratio of the two.

    inputs: keyword arguments of the kernel's function. In the mode "backward" the gradients of the
    inputs are compared instead of outputs.
    """
    inputs64 = {
        k: v.double().contiguous() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()
    }
    ours = run(kernel.function, inputs, mode, seed)
    theirs = run(kernel.reference, inputs, mode, seed)
    exact = run(kernel.reference, inputs64, mode, seed)
    pairs = [
        (max_error(a, c).item(), allowed_error(b, c.double(), a.dtype))
        for a, b, c in zip(ours, theirs, exact, strict=True)
    ]
    return worst(pairs)


def worst(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the (error, allowed error) with the largest ratio; a NaN error counts as largest."""
    return max(pairs, key=lambda p: math.inf if math.isnan(p[0]) else p[0] / max(p[1], 1e-30))


def cases(kernel: Kernel, device: str, quick: bool) -> Iterator[tuple[Shape, torch.dtype, str]]:
    """Yield each (shape, dtype, mode) at which `kernel` is to be checked on `device`.

    The shapes are from `kernels.shapes`. quick: fp16 at the shapes that are marked `quick` only.
    """
    shapes = kernel.small_shapes if INTERPRETED else kernel.shapes
    for shape in shapes:
        if quick and not (INTERPRETED or shape.quick):
            continue
        for dtype in (torch.float16,) if quick else DTYPES:
            if device_problem(torch.device(device), dtype) is None:
                yield from ((shape, dtype, mode) for mode in kernel.modes)


def check_kernel(kernel: Kernel, device: str, quick: bool, seed: int) -> bool:
    """Check one kernel at all its cases; print a table row for each; return whether all passed."""
    right = True
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
    for shape, dtype, mode in cases(kernel, device, quick):
        error = allowed = math.nan
        try:
            calls = load(kernel.make_inputs)(shape, dtype, device, seed)
            error, allowed = worst([check_once(kernel, inputs, mode, seed) for inputs in calls])
            note = "ok" if error <= allowed else "WRONG"
        except Exception as problem:
            note = f"FAILED: {first_line(problem)}"
        right = right and note == "ok"
        print_row(kernel.name, shape.full_title, dtype_name(dtype), mode, error, allowed, note)
        if note.startswith("FAILED") and not usable(device):
            print(f"{kernel.name}: the GPU's context is broken; its other cases are left out.")
            return False
    return right


def usable(device: str) -> bool:
    """Return whether this process can still compute on `device`.

    After an illegal memory access CUDA refuses every further call of the process.
    """
    try:
        return torch.ones(2, device=device).sum().item() == 2
    except Exception:
        return False


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters.

    If the message is empty, return the name of the error's type.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def print_row(
    name: str, shape: str, dtype: str, mode: str, error: float, allowed: float, note: str
) -> None:
    """Print one row of the table that compares errors; error and allowed are absolute."""
    cells = name, shape, dtype, mode, f"{error:.1e}", f"{allowed:.1e}", note
    print(" ".join(c.ljust(w) for c, w in zip(cells, WIDTHS, strict=True)).rstrip(), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if all kernels are right, 1 if not, 2 for bad arguments."""
    parser = argparse.ArgumentParser(
        "python -m kernels.check", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="fp16 at a few shapes")
    parser.add_argument("--device", default="auto", help="auto, cuda or cuda:N; cpu interpreted")
    parser.add_argument("--only", metavar="NAME", help=f"of {', '.join(KERNELS)}; default: all")
    args = parser.parse_args(argv)
    if args.only not in (None, *KERNELS):
        print(f"There is no kernel {args.only!r}; there is {', '.join(KERNELS)}.", file=sys.stderr)
        return 2
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
        problem = device_problem(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        problem = first_line(error)
    if problem:
        print(f"The kernels can't be checked on {device}: {problem}", file=sys.stderr)
        return 2
    seed = secrets.randbelow(2**31)
    print(f"{'Interpreted on' if INTERPRETED else 'On'} {device}, seed {seed}.")
    print(" ".join(c.ljust(w) for c, w in zip(HEAD, WIDTHS, strict=True)).rstrip(), flush=True)
    wrong = []
    for kernel in KERNELS.values():
        if args.only in (None, kernel.name) and not _in_own_process(
            kernel, device, args.quick, seed
        ):
            wrong.append(kernel.name)
    print(f"Wrong: {', '.join(wrong)}." if wrong else "All are right.")
    return 1 if wrong else 0


def _in_own_process(kernel: Kernel, device: str, quick: bool, seed: int) -> bool:
    """Return what `check_kernel` returns in a new process, or False if that process dies."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(check_kernel, kernel, device, quick, seed).result()
        except BrokenProcessPool:
            print_row(kernel.name, "", "", "", math.nan, math.nan, "CRASHED: its process ended.")
            return False


if __name__ == "__main__":
    sys.exit(main())
