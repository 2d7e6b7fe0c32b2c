"""Copy the code to a folder, add a row to one of its tables, and see what the copy does with it.

For tests that a new sampler, backend, task or tab is one file and one row. The copy is a folder of
links to the real files; a changed file takes the place of its link.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def copy_code(folder: Path) -> None:
    """Fill `folder` with links to the code, and with the conftest files of the page's tests."""
    for name in ("demo", "kernels", "pipeline"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, copy_function=os.symlink, ignore=ignore)
    for name in ("pyproject.toml", "tests/conftest.py", "tests/demo/conftest.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def add_row(
    path: Path, table: str, key: str, value: str | None = None, *, after: str | None = None
) -> None:
    """Add `"key": value` to the dict named `table` in the file `path`.

    after: the key of the row to put it behind; None: at the end. value: its source text; None: that
    of the row `after`. A link is replaced by a changed copy of the file that it points to.
    """
    source = path.read_text(encoding="utf-8")
    rows = _find_dict(source, table)
    line = (rows.end_lineno or 0) - 1
    if after is not None:
        row = next(v for k, v in _items(rows) if k == after)
        line = row.end_lineno or 0
        value = value or ast.get_source_segment(source, row)
    assert value is not None, "a row at the end of a table needs a value"
    lines = source.splitlines()
    lines.insert(line, f'    "{key}": {value},')
    path.unlink()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def describe(folder: Path, script: Path) -> dict[str, Any]:
    """Run the test file `script` in the copy and return what it reports.

    The script writes its report as JSON to the path in the environment variable REPORT.
    """
    shutil.copy(script, folder / "tests/demo/test_describe.py")
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "tests"],
        cwd=folder,
        env=os.environ | {"REPORT": str(report)},
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stdout + done.stderr
    return json.loads(report.read_text(encoding="utf-8"))


def _find_dict(source: str, table: str) -> ast.Dict:
    """Return the dict that the source assigns to the name `table`."""
    for node in ast.walk(ast.parse(source)):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(node, ast.Assign | ast.AnnAssign) and targets[0].id == table:
            assert isinstance(node.value, ast.Dict)
            return node.value
    raise AssertionError(f"there is no table {table}")


def _items(rows: ast.Dict) -> list[tuple[Any, ast.expr]]:
    """Return (key, value's node) of each row of a dict whose keys are constants."""
    return [(getattr(k, "value", None), v) for k, v in zip(rows.keys, rows.values, strict=True)]
