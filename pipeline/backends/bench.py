"""`python -m pipeline.backends.bench`: kernels.bench with every backend of `table.py`.

kernels.bench by itself times the kernels and libraries that it knows. Backends that only `table.py`
lists are added to them.
"""

from __future__ import annotations

import sys

from .table import ATTENTION, GROUP_NORM


def add_providers() -> None:
    """Make `python -m kernels.bench` also time the backends that only the pipeline defines.

    Each backend of ATTENTION and GROUP_NORM is added to the benchmark's tables of implementations,
    unless it is there already. An attention backend that only calls others is left out.
    """
    from kernels.bench import attention, group_norm

    for name, row in ATTENTION.items():
        if not row.combines:
            attention.RUNS.setdefault(row.provider or name, row.run)
    for name, row in GROUP_NORM.items():
        group_norm.RUNS.setdefault(row.provider or name, row.run)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m kernels.bench` with all backends of this project; return its exit code.

    argv: the command's arguments; None is those of this process.
    """
    from kernels.bench.__main__ import main as bench

    add_providers()
    return bench(argv)


if __name__ == "__main__":
    sys.exit(main())
