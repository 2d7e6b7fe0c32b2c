"""The table of the page's tabs, in the order in which the page shows them.

A new tab is one file (or folder) here that defines TAB, and one row in TABS. A TaskTab shows the
shared settings and runs the task of the same key in `pipeline.tasks.TASKS`; a Tab builds all of its
components itself. The styles of a tab are the *.css files in this folder or its own; the page finds
them by their ending.
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

TABS: dict[str, Tab | TaskTab] = {  # by key, which is also the id of the tab on the page
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
