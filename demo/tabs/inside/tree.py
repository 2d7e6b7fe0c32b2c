"""The tree of pictures that a visitor explores: a picture, its branches, and their branches.

A branch is a picture drawn again from one of its steps on with other options.
"""

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
    """A picture in the tree that a visitor explores: a picture, its branches, and their branches.

    A branch is a picture drawn again from one of its steps on with other options. A node is small
    enough to stay in the visitor's session, and suffices to draw the picture again after the server
    has evicted its recording (all model calls) from memory.

    key      the key of the recording in the RecordingStore
    parent   the key of the picture that this one branches off; None for the root
    at       the step, from 0, from which it branches off; None for the root
    change   the options that the branch changed, and their new values
    thumb    a thumbnail as a data URL
    steps    the number of sampling steps
    model    name and hash of the checkpoint, and name of its autoencoder (None: its own)
    lineage  the options of the root, then the changes of each branch down to this one; () for a
             picture that cannot be drawn again from them, such as one made from another picture
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


Tree = dict[str, Node]  # by the key of each recording


def make_node(recording: Recording) -> Node:
    """Return the node that stands for a recorded picture in the visitor's tree of branches."""
    start = recording.origin.initial_state
    lineage = start.lineage
    if not lineage and start.clean is None and start.start_step == 0 and not start.tile:
        first, second = recording.origin.seeds
        single = {"count": 1, "seed": first, "variation_seed": second}
        lineage = (plain_options(recording.options.model_copy(update=single)),)
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
    """Return a copy of the visitor's tree of pictures and branches with one more picture.

    A picture without a parent starts a new tree, and so does one whose parent is not in this tree.
    """
    node = make_node(recording)
    if node.parent is None:
        return {node.key: node}
    return (tree if node.parent in tree else {}) | {node.key: node}


def describe_change(change: dict[str, Any], language: str) -> str:
    """Return the options that a branch changed as plain text: "Sampler: Heun, Guidance: 6.5".

    change: the changed options by name, with their new values. language: "en" or "zh".
    """
    if not change:
        return say("inside_nothing", language)
    tables: dict[str, Any] = {"sampler": SAMPLERS, "schedule": SCHEDULES}
    parts = []
    for name, value in change.items():
        label = tables[name][value].label if name in tables else value
        label = f"{label:g}" if isinstance(label, float) else str(label)
        parts.append(f"{say(f'inside_{name}', language)}: {label}")
    return ", ".join(parts)
