"""Write the tables of the code into docs/operations.md: python -m demo.document."""

from __future__ import annotations

from pathlib import Path

from . import limits
from .server import routes

PATH = Path(__file__).parents[1] / "docs" / "operations.md"
TABLES = {"limits": limits.table, "routes": routes.table}  # by the name of their marks


def fill(document: str) -> str:
    """Return the text of docs/operations.md with each of TABLES, as it is now, between its marks.

    The marks are <!-- NAME --> and <!-- /NAME -->, on lines of their own.
    """
    for name, table in TABLES.items():
        before, rest = document.split(f"<!-- {name} -->\n", 1)
        after = rest.split(f"<!-- /{name} -->", 1)[1]
        document = f"{before}<!-- {name} -->\n{table()}\n<!-- /{name} -->{after}"
    return document


if __name__ == "__main__":
    PATH.write_text(fill(PATH.read_text(encoding="utf-8")), encoding="utf-8")
