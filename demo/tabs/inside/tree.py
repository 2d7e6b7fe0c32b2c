"""The tree of a visitor's pictures: a picture and its branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.introspection.recording import Recording, plain_options
from pipeline.samplers import SAMPLERS, SCHEDULES

from ...texts import say
from ...ui.images import data_url

THUMBNAIL_SIDE = 128  # pixels


@dataclass(frozen=True)
class Node:
    """A picture of a tree, kept with the visitor.

    It is enough to draw the picture again where its recording was evicted. at: the step from which
    it branches off its parent, from 0. change: what the branch changed. thumb: a data URL.
    lineage: see InitialState; () for a picture that began from another picture.
    """

    key: str
    parent: str | None
    at: int | None
    change: dict[str, Any]
    thumb: str
    prompt: str
    steps: int
    model: tuple[str, str, str | None]
    lineage: tuple[dict[str, Any], ...]


Tree = dict[str, Node]  # by the keys of the recordings


def make_node(recording: Recording) -> Node:
    """Return the node of a recorded picture."""
    start = recording.origin.initial_state
    lineage = start.lineage
    if not lineage and start.clean is None and start.start_step == 0 and not start.tile:
        first, second = recording.origin.seeds
        alone = {"count": 1, "seed": first, "variation_seed": second}
        lineage = (plain_options(recording.options.model_copy(update=alone)),)
    plain = start.start_step >= 0 and not (start.x0_hook or start.postprocess or start.tile)
    change = dict(recording.change)
    return Node(
        key=recording.key,
        parent=recording.parent,
        at=change.pop("at", None),
        change=change,
        thumb=data_url(recording.image, THUMBNAIL_SIDE),
        prompt=recording.options.prompt,
        steps=recording.steps,
        model=recording.model,
        lineage=tuple(dict(x) for x in lineage) if plain else (),
    )


def add_picture(tree: Tree, recording: Recording) -> Tree:
    """Return the tree with one more picture, or a new tree where its parent is not in this one."""
    node = make_node(recording)
    if node.parent is None:
        return {node.key: node}
    return (tree if node.parent in tree else {}) | {node.key: node}


def describe_change(change: dict[str, Any], language: str) -> str:
    """Return what a branch changed, such as "Sampler: Heun, Guidance: 6.5"."""
    if not change:
        return say("inside_nothing", language)
    tables: dict[str, Any] = {"sampler": SAMPLERS, "schedule": SCHEDULES}
    parts = []
    for name, value in change.items():
        shown = tables[name][value].label if name in tables else value
        shown = f"{shown:g}" if isinstance(shown, float) else str(shown)
        parts.append(f"{say(f'inside_{name}', language)}: {shown}")
    return ", ".join(parts)
