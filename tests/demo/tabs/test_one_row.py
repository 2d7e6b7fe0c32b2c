"""A new tab is one file and one row: fake ones, added to a copy of the code, show on the page."""

from pathlib import Path

import pytest

from tests import fake_row

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


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """Return what describe_page.py writes in a copy of the code with a tab and a task added."""
    folder = tmp_path_factory.mktemp("copy")
    fake_row.copy_code(folder)
    files = {
        "demo/tabs/postcard.py": TAB,
        "demo/tabs/postcard.css": STYLE,
        "demo/tabs/mirror.py": TASK_TAB,
        "pipeline/tasks/mirror.py": TASK,
    }
    for name, source in files.items():
        (folder / name).write_text(source, encoding="utf-8")
    fake_row.add_row(folder / "pipeline/tasks/__init__.py", "TASKS", "mirror", after="hires")
    table = folder / "demo/tabs/__init__.py"
    for key in ("postcard", "mirror"):
        fake_row.add_row(table, "TABS", key, f"{key}.TAB", after="kernels")
        source = table.read_text(encoding="utf-8")
        source = source.replace("    kernels,\n", f"    kernels,\n    {key},\n")  # its import
        table.write_text(source, encoding="utf-8")
    return fake_row.describe(folder, Path(__file__).with_name("describe_page.py"))


@pytest.mark.slow
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
