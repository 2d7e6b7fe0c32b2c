"""`python -m pipeline.backends.bench`: kernels.bench with every backend of `table.py`.

kernels.bench by itself times the kernels and libraries that it knows. Backends that only `table.py`
lists are added to them.
"""

from __future__ import annotations

import sys

from .table import ATTENTION, GROUP_NORM


def add_providers() -> None:
    """Add each backend of ATTENTION and GROUP_NORM that kernels.bench does not know to its RUNS.

    One that only calls other backends is left out.
    """
    from kernels.bench import attention, group_norm

    for name, row in ATTENTION.items():
        if not row.combines:
            attention.RUNS.setdefault(row.provider or name, row.run)
    for name, row in GROUP_NORM.items():
        group_norm.RUNS.setdefault(row.provider or name, row.run)


def main(argv: list[str] | None = None) -> int:
    """Add the backends and run the command of kernels.bench; return its exit code."""
    from kernels.bench.__main__ import main as bench

    add_providers()
    return bench(argv)


if __name__ == "__main__":
    sys.exit(main())
