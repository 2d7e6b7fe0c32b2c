"""python -m pipeline.backends.bench: `python -m kernels.bench`, with every backend of the tables.

kernels.bench measures the kernels and the libraries that it knows; a backend that only has a row
here is added to them.
"""

from __future__ import annotations

import sys

from .table import ATTENTION, GROUP_NORM


def add_providers() -> None:
    """Add the backends that kernels.bench does not know to its providers."""
    from kernels.bench import attention, group_norm

    for name, row in ATTENTION.items():
        attention.RUNS.setdefault(row.provider or name, row.run)
    for name, row in GROUP_NORM.items():
        group_norm.RUNS.setdefault(row.provider or name, row.run)


def main(argv: list[str] | None = None) -> int:
    """Add the providers and run kernels.bench's command; return its exit code."""
    from kernels.bench.__main__ import main as bench

    add_providers()
    return bench(argv)


if __name__ == "__main__":
    sys.exit(main())
