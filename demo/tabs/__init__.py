"""The page's tabs, in their order: one file each, one line here.

Either a fields.Task, which draws with the shared settings, or a function `tab(page)` that fills the
panel with what it likes, see page.py.
"""

from ..ui.fields import Task
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

TABS = {
    "generate": generate.TASK,
    "image_to_image": image_to_image.TASK,
    "inpaint": inpaint.TASK,
    "hires": hires.TASK,
    "upscale": upscale.TASK,
    "colorize": colorize.TASK,
    "character": character.tab,
    "grid": grid.TASK,
    "inside": inside.tab,
    "arena": arena.tab,
    "zero": from_zero.tab,
    "info": info.tab,
    "kernels": kernels.tab,
}
TASKS = {key: tab for key, tab in TABS.items() if isinstance(tab, Task)}
