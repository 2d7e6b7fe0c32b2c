"""A new tab is one file and one row: a fake one, added to a copy of the code, shows on the page."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

TAB = '''
"""The tab Postcard."""

import gradio as gr

from ..ui.tab import Tab


def build(page):
    gr.Textbox(label=page.i18n("postcard_message"), elem_id="postcard-message")


TAB = Tab(
    title=("Postcard", "明信片"),
    build=build,
    texts={"postcard_message": ("Message", "留言")},
)
'''
STYLE = "#postcard-message { color: red; }"

TASK = '''
"""The task Mirror."""

from typing import Annotated

from pydantic import Field

from . import hires
from .option_types import number


class Options(hires.Options):
    tilt: Annotated[float, number(0, 90)] = Field(15.0, description="Degrees that it is turned by")


def stream(models, options, *, words=False):
    return hires.stream(models, options, words=words)
'''
TASK_TAB = '''
"""The tab Mirror."""

from ..ui.fields import number, picture
from ..ui.tab import TaskTab


def inputs(page, key):
    return {"tilt": number(page, key, "tilt"), "picture": picture(page, key)}


TAB = TaskTab(
    title=("Mirror", "镜像"),
    button=("Draw mirrored", "画镜像"),
    inputs=inputs,
    texts={"tilt": ("Tilt", "倾斜"), "tilt_hint": ("In degrees.", "单位为度。")},
)
'''


def add_row(path: Path, table: str, like: str, key: str, value: str | None = None) -> None:
    """Add a row to a table, behind that of `like`; without a value with that row's own."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(node, ast.Assign | ast.AnnAssign) and targets[0].id == table:
            rows = node.value
            break
    row = next(v for k, v in zip(rows.keys, rows.values, strict=True) if k.value == like)
    lines = source.splitlines()
    value = value or ast.get_source_segment(source, row)
    lines.insert(row.end_lineno, f'    "{key}": {value},')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """What describe_page.py finds on the page of a copy of the code with a tab and a task more."""
    place = tmp_path_factory.mktemp("copy")
    for name in ("demo", "kernels", "pipeline"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, place / name, copy_function=os.symlink, ignore=ignore)
    for name in ("pyproject.toml", "tests/conftest.py", "tests/demo/conftest.py"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    shutil.copy(Path(__file__).with_name("describe_page.py"), place / "tests/demo/test_page.py")
    tables = place / "demo/tabs/__init__.py", place / "pipeline/tasks/__init__.py"
    for table in tables:
        source = table.read_text(encoding="utf-8")
        table.unlink()  # a link to the real one
        table.write_text(source, encoding="utf-8")
    files = {
        "demo/tabs/postcard.py": TAB,
        "demo/tabs/postcard.css": STYLE,
        "demo/tabs/mirror.py": TASK_TAB,
        "pipeline/tasks/mirror.py": TASK,
    }
    for name, source in files.items():
        (place / name).write_text(source, encoding="utf-8")
    add_row(tables[1], "TASKS", "hires", "mirror")
    for key in ("postcard", "mirror"):
        add_row(tables[0], "TABS", "kernels", key, f"{key}.TAB")
        source = tables[0].read_text(encoding="utf-8")
        tables[0].write_text(
            source.replace("    kernels,\n", f"    kernels,\n    {key},\n"), "utf-8"
        )
    report = place / "page.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "tests"],
        cwd=place,
        env=os.environ | {"PAGE_REPORT": str(report)},
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stdout + done.stderr
    return json.loads(report.read_text(encoding="utf-8"))


def test_a_tab_shows_in_both_languages_with_its_components_and_styles(described):
    assert {"tab-postcard", "postcard-message"} <= set(described["ids"])
    english, chinese = (described["texts"][language] for language in ("en", "zh"))
    assert (english["tab_postcard"], chinese["tab_postcard"]) == ("Postcard", "明信片")
    assert (english["postcard_message"], chinese["postcard_message"]) == ("Message", "留言")
    assert STYLE in described["css"]
    assert ':has(#tab-postcard[style*="flex"]) #gb-work' in described["css"]


def test_a_task_s_tab_shows_in_both_languages_with_its_button_and_endpoint(described):
    # its panel, its button, its own input, and buttons that send pictures to it
    ids = {"tab-mirror", "mirror", "mirror-tilt", "gallery-to-mirror", "info-to-mirror"}
    assert ids <= set(described["ids"])
    english, chinese = (described["texts"][language] for language in ("en", "zh"))
    assert (english["tab_mirror"], chinese["tab_mirror"]) == ("Mirror", "镜像")
    assert (english["mirror"], chinese["mirror"]) == ("Draw mirrored", "画镜像")
    assert (english["tilt"], chinese["tilt"]) == ("Tilt", "倾斜")
    assert "mirror" in described["endpoints"]
    assert ".gb-for:not(.gb-for-mirror)" in described["css"]
