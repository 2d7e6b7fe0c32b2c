"""How much a request draws, and the sentence that says what would fit where it is too much.

The limit on a request (demo/limits.py, max_work) and the seconds that zerogpu.py reserves count the
same: pixels times calls of the UNet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pipeline import tasks
from pipeline.options import LIMITS, GenerateOptions
from pipeline.tasks.common import USUAL

from ..events import Refused

MILLION = 1e6  # in which limits count
SIDE = 8  # sides in pixels are its multiples
LEAST_SIDE = int(LIMITS["width"][0])  # pixels
SCALE_STEP = 0.1  # between the scales that are tried


def count_work(
    task: str, options: Any, entries: Any = (), defaults: Mapping[str, Any] | None = None
) -> float:
    """Return how much a request draws, in pixels times calls of the UNet.

    task: a key of TASKS; "arena" for a race, in which several samplers or backends draw the same
    picture; any other draws as text to image does. options: those of the task. entries: what races.
    defaults: the model's width, height, steps and sampler, for options that are None.
    """
    if task == "arena":
        from pipeline.introspection import arena

        usual = USUAL if defaults is None else defaults
        width, height = options.width or usual["width"], options.height or usual["height"]
        return float(width * height * arena.max_calls(entries, options.steps or usual["steps"]))
    return tasks.work(task if task in tasks.TASKS else "generate", options, defaults)


def check_work(
    limit: int,
    task: str,
    options: Any,
    entries: Any = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Raise Refused if a request draws more than `limit` million pixels times UNet calls.

    limit: 0 for no limit. The sentence names what would fit: fewer pictures or steps, a smaller
    size or scale, each alone. Other parameters: as of `count_work`.
    """
    if not limit:
        return

    def count(changed: Any) -> float:
        return count_work(task, changed, entries, defaults) / MILLION

    work = count(options)
    if work <= limit:
        return
    fits = []
    if task in (*tasks.TASKS, "arena"):  # others continue a picture, whose options are fixed
        fits = find_fits(lambda changed: count(changed) <= limit, options, defaults or USUAL)
    figures: dict[str, Any] = {"work": f"{math.ceil(work):,}", "limit": f"{limit:,}"}
    if fits:
        raise Refused("too_much_fits", **figures, fits=fits)
    raise Refused("too_much", **figures)


def find_fits(
    fit: Callable[[Any], bool], options: Any, defaults: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return what makes a request small enough, each change alone, with the least change of each.

    They are (key, values) of the texts "fits_count", "fits_steps", "fits_size" and "fits_scale";
    changes that do not suffice are left out. fit: whether a request with the given options is small
    enough. options: those of the request, which is not. defaults: the model's width, height and
    steps.
    """

    def largest(changes: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the last of `changes`, from small to large, with which the request fits."""
        low, high = 0, len(changes)
        while low < high:
            middle = (low + high) // 2
            if fit(options.model_copy(update=changes[middle])):
                low = middle + 1
            else:
                high = middle
        return changes[low - 1] if low else None

    found: list[tuple[str, dict[str, Any]]] = []
    for name, value in (("count", options.count), ("steps", options.steps or defaults["steps"])):
        change = largest([{name: n} for n in range(1, value)])
        if change:
            found.append((f"fits_{name}", {"value": change[name]}))
    width, height = options.width or defaults["width"], options.height or defaults["height"]
    sizes = []
    for long in range(LEAST_SIDE, max(width, height), SIDE):
        share = long / max(width, height)
        sides = (max(LEAST_SIDE, int(s * share) // SIDE * SIDE) for s in (width, height))
        sizes.append(dict(zip(("width", "height"), sides, strict=True)))
    change = largest(sizes)
    if change:
        found.append(("fits_size", change))
    scale = getattr(options, "scale", None)
    if scale is not None:
        tenths = range(round(1 / SCALE_STEP), math.ceil(scale / SCALE_STEP))
        change = largest([{"scale": round(n * SCALE_STEP, 1)} for n in tenths])
        if change:
            found.append(("fits_scale", {"value": f"{change['scale']:g}"}))
    return found


def is_drawing(args: tuple[Any, ...]) -> bool:
    """Return whether the arguments of a call are those of a drawing: (task, options, ...)."""
    return len(args) > 1 and isinstance(args[1], GenerateOptions)
