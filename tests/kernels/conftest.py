"""What the kernels' tests share: a check against fp64, NaN in fresh memory, a fake kernel."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from kernels.check import FLOOR
from kernels.registry import KERNELS
from kernels.shapes import AttentionShape


@pytest.fixture(autouse=True)
def poisoned():
    """Make torch.empty return NaN, so that an output that a kernel does not write is noticed."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def _interpreter_fails() -> bool:
    """Return whether Triton's interpreter fails at a loop.

    Triton 3.6 converts arrays to loop bounds in a way that NumPy 2.4 no longer allows.
    """
    import triton
    import triton.language as tl

    @triton.jit
    def count(x, n):
        for i in range(0, n):
            tl.store(x + i, 1.0)

    x = torch.zeros(2)
    try:
        count[(1,)](x, 2)
    except Exception as error:
        if "only 0-dimensional arrays can be converted" in str(error):
            return True
        raise
    return False


def pytest_collection_modifyitems(items):
    """Skip the kernels' tests if Triton's interpreter does not work with this NumPy."""
    try:
        from kernels.launch import INTERPRETED
    except ImportError:  # no triton
        return
    if INTERPRETED and _interpreter_fails():
        skip = pytest.mark.skip(reason="this Triton's interpreter needs NumPy below 2.4")
        for item in items:
            if "tests/kernels" in item.path.as_posix():
                item.add_marker(skip)


def _judge(
    ours: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor, what: str, size=0.1
) -> None:
    """Fail if our result's error exceeds twice PyTorch's own error in the same dtype, plus a floor.

    ours, theirs: our kernel's and PyTorch's result. exact: the result in fp64. what: for the
    message. size: the smallest magnitude that the floor is relative to, for sums whose terms may
    cancel.
    """
    assert ours.shape == exact.shape, what
    if not exact.numel():
        return
    size = exact.abs().max().clamp(min=size)
    error = (ours.double() - exact).abs().max()
    limit = 2 * (theirs.double() - exact).abs().max() + FLOOR[ours.dtype] * size
    assert error <= limit, f"{what}: off by {error:.2e}, allowed {limit:.2e}"


@pytest.fixture(scope="session")
def judge():
    """judge(ours, theirs, exact, what) fails if `ours` is too far from `exact`, see _judge."""
    return _judge


FAKE = '''
"""A kernel and its benchmark in one file."""

import torch
import triton
import triton.language as tl

from kernels.attention.cases import make_inputs, tuning_jobs
from kernels.bench.measure import Call, Provider, Work, compare


@triton.jit
def copy_kernel(x, y, n, B: tl.constexpr):
    o = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + o, tl.load(x + o, mask=o < n), mask=o < n)


def copy(q, k, v):
    y = torch.empty_like(q)
    copy_kernel[(triton.cdiv(q.numel(), 64),)](q, y, q.numel(), B=64)
    return y


def wrong(q, k, v):
    return copy(q, k, v) * 1.1


def crash(q, k, v):
    import os

    os._exit(3)


def fail(q, k, v):
    raise RuntimeError("an illegal memory access")


def hang(q, k, v):
    import time

    time.sleep(600)


def unequal(q, k, v):
    return copy(q, k, v) + torch.rand((), dtype=torch.float64).to(q.dtype) * 1e-4


def forget(q, k, v):
    y = torch.empty_like(q)
    y[:, 1:] = q[:, 1:]
    return y


def check_configurations(shape, dtype, mode, device, every):
    yield f"fake/{dtype}".replace("torch.", ""), {"B": 64}, {}


def reference(q, k, v):
    return q.clone()


def launch_on_meta(shape, dtype, mode):
    (inputs,) = make_inputs(shape, dtype, "meta")
    copy(**inputs)


def rows(device, dtype, modes, seconds):
    x = torch.ones(8)
    peer = Provider("peer", lambda x: Call(lambda: x * 1))
    yield from compare("fake", "forward", "s", dtype, [peer], (x,), x, Work(1, 1, "GB/s"),
                       device, seconds)
'''


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return a row of KERNELS for a fake kernel whose source is FAKE; it is not in KERNELS yet.

    FAKE is written to the importable module fake_kernel.
    """
    (tmp_path / "fake_kernel.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fake_kernel", raising=False)
    small = AttentionShape("fake", 64, 1, 32, 32, 1, 8, quick=True)
    hooks = {
        name: f"fake_kernel:{name}"
        for name in (
            "reference", "make_inputs", "launch_on_meta", "check_configurations", "tuning_jobs"
        )
    }  # fmt: skip
    return replace(
        KERNELS["attention"], name="fake", label="fake", function="fake_kernel:copy", **hooks,
        bench="fake_kernel", modes=("forward",), shapes=(small,), small_shapes=(small,),
        matmul_kernels=(),
    )  # fmt: skip
