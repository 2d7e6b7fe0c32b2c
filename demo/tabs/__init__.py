"""The table of tabs, in the page's order.

A new tab is one file (or folder) here that defines TAB, and one row in TABS. A TaskTab runs a task
of `pipeline.tasks` and has the task's key; a Tab fills its panel itself. Styles stand in *.css
files beside the tab and are found by their ending.
"""

from .. import texts
from ..ui.tab import Tab, TaskTab
from . import (
    arena,
    character,
    colorize,
    from_zero,
    generate,
    grid,
    hires,
    image_to_image,
    info,
    inpaint,
    inside,
    kernels,
    upscale,
)

TABS: dict[str, Tab | TaskTab] = {
    "generate": generate.TAB,
    "image_to_image": image_to_image.TAB,
    "inpaint": inpaint.TAB,
    "hires": hires.TAB,
    "upscale": upscale.TAB,
    "colorize": colorize.TAB,
    "character": character.TAB,
    "grid": grid.TAB,
    "inside": inside.TAB,
    "arena": arena.TAB,
    "zero": from_zero.TAB,
    "info": info.TAB,
    "kernels": kernels.TAB,
}
TASK_TABS = {key: tab for key, tab in TABS.items() if isinstance(tab, TaskTab)}
PANEL_TABS = {key: tab for key, tab in TABS.items() if isinstance(tab, Tab)}

for _key, _tab in TABS.items():
    texts.add({f"tab_{_key}": _tab.title} | _tab.texts)
for _key, _task in TASK_TABS.items():
    texts.add({_key: _task.button})
