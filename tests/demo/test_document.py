"""docs/operations.md has the tables of the code."""

from demo import document
from demo.limits import LIMITS
from demo.server.routes import ROUTES


def test_the_document_has_todays_tables():
    """`python -m demo.document` writes them anew."""
    text = document.PATH.read_text(encoding="utf-8")
    assert document.fill(text) == text
    emptied = text
    for table in document.TABLES.values():
        assert table() in emptied
        emptied = emptied.replace(table(), "")
    assert document.fill(emptied) == text


def test_the_tables_name_every_limit_and_route():
    text = document.PATH.read_text(encoding="utf-8")
    assert all(limit.help in text for limit in LIMITS.values())
    for path, route in ROUTES.items():
        if not path.endswith("/") or path == "/":
            assert f" {path}`" in text and route.serves in text
