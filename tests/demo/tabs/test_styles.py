"""Styles of a tab are scoped to it: no class of one tab means something in another."""

import re
from pathlib import Path

import pytest

import demo
from demo.tabs import TABS
from demo.ui.tab import Tab

FOLDER = Path(demo.__file__).parent / "tabs"
FILES = sorted(FOLDER.rglob("*.css"))
PREFIXES = {"inside": ".gbi"}  # classes that no other style sheet has


def selectors(css: str) -> list[str]:
    """Every selector of a style sheet, those in media queries too."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    heads = re.findall(r"([^{}]+)\{", css)
    return [
        selector.strip()
        for head in heads
        if not head.strip().startswith("@")
        for selector in re.split(r",(?![^()]*\))", head)
    ]


def key_of(path: Path) -> str:
    """The key of the tab that the file stands with."""
    module = "demo.tabs." + path.relative_to(FOLDER).parts[0].removesuffix(".css")
    for key, tab in TABS.items():
        function = tab.build if isinstance(tab, Tab) else tab.inputs
        if f"{function.__module__}.".startswith(f"{module}."):
            return key
    raise AssertionError(f"{path} stands with no tab")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_selector_begins_with_an_id_or_a_prefix_of_its_tab(path):
    key = key_of(path)
    own = (f"#tab-{key}", f"#gb-{key}", f"#{key}-", f".dark #tab-{key}", PREFIXES.get(key, "#tab-"))
    strange = [s for s in selectors(path.read_text(encoding="utf-8")) if not s.startswith(own)]
    assert strange == []


@pytest.mark.parametrize("key", PREFIXES)
def test_a_prefix_belongs_to_one_tab_alone(key):
    others = [p for p in [*FILES, FOLDER.parent / "ui/page.css"] if p.parent.name != key]
    for path in others:
        assert PREFIXES[key] not in path.read_text(encoding="utf-8")
