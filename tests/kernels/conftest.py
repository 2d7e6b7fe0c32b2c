"""What the kernels' tests share: a judge in higher precision, NaN in fresh memory."""

from __future__ import annotations

import pytest
import torch

FLOOR = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(autouse=True)
def poisoned():
    """torch.empty gives NaN, so a value that a kernel leaves out shows."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def _interpreter_fails() -> bool:
    """Triton 3.6's interpreter counts loops by a conversion that NumPy 2.4 no longer does."""
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
    """Ours may be off by twice PyTorch's own error in the same type, plus a floor.

    `size`: of the terms that are summed, where they may cancel to nothing.
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
    return _judge
