"""What inside.js shows at first: the open picture, its model calls, its tree, and all labels."""

from __future__ import annotations

import json

from pipeline.introspection import decoded_views
from pipeline.introspection.recording import Recording

from ...texts import say
from .tree import Tree, describe_change

MAX_WORDS = 120  # of a prompt that are shown
LABELS = (
    *("kind", "step", "play", "pause", "words", "words_hint", "every", "this", "all_layers"),
    *("compare", "divider", "tree", "side", "loading", "sigma", "time", "layers", "no_words"),
    *(f"kind_{kind}" for kind in decoded_views.KINDS),
    *(f"about_{kind}" for kind in decoded_views.KINDS),
)


def describe_picture(recording: Recording, tree: Tree, language: str) -> str:
    """Return the open picture and its tree for inside.js, as JSON."""
    words: list[list[str]] = []
    calls = []
    for call in recording.calls:
        shown = list(call.words[:MAX_WORDS])
        if shown not in words:
            words.append(shown)
        calls.append([call.step, round(call.t, 2), call.sigma, words.index(shown)])
    nodes = [
        {
            "key": n.key,
            "parent": n.parent,
            "thumb": n.thumb,
            "name": n.prompt if n.parent is None else describe_change(n.change, language),
            "from": None if n.at is None else say("inside_from", language, step=n.at + 1),
        }
        for n in tree.values()
    ]
    first = recording.calls[0]
    width, height = recording.image.size
    return json.dumps(
        {
            "key": recording.key,
            "prompt": recording.options.prompt,
            "size": [width, height],
            "steps": recording.steps,
            "before": recording.parent_calls,
            "calls": calls,
            "words": words,
            "grids": [list(g.shape[1:]) for g in first.grids],
            "kinds": decoded_views.KINDS
            if decoded_views.has_guidance(first)
            else decoded_views.KINDS[:3],
            "nodes": nodes,
            "labels": {name: say(f"inside_{name}", language) for name in LABELS},
        },
        ensure_ascii=False,
    )
