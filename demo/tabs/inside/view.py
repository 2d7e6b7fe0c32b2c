"""The data that inside.js needs to open a picture: its model calls, its tree, and all labels."""

from __future__ import annotations

import json

from pipeline.introspection import decoded_views
from pipeline.introspection.recording import Recording

from ...texts import say
from .tree import Tree, describe_change

MAX_WORDS = 120  # words of a prompt that are shown
LABELS = (  # the texts that inside.js shows, by key without "inside_"
    *("kind", "step", "play", "pause", "words", "words_hint", "every", "this", "all_layers"),
    *("compare", "divider", "tree", "side", "loading", "sigma", "time", "layers", "no_words"),
    *(f"kind_{kind}" for kind in decoded_views.KINDS),
    *(f"about_{kind}" for kind in decoded_views.KINDS),
)


def describe_picture(recording: Recording, tree: Tree, language: str) -> str:
    """Return a recorded picture and the tree of its branches as JSON for inside.js, the viewer.

    A branch is a picture drawn again from one of its steps on with other options. The only images
    in the JSON are the tree's thumbnails: inside.js asks FrameServer for decoded frames and
    attention maps of words as it needs them. The less obvious items of the JSON:
    calls   for each UNet call [step, timestep t, sigma, index into "words"]
    words   the different lists of prompt words; several if the prompt changes from step to step
    before  if the picture is a branch: how many of the first calls it has in common with the
            picture that it branches off; else 0
    grids   [h, w] of the attention maps, for each resolution at which the UNet has them
    kinds   the views of a call that can be decoded, such as "latents", see decoded_views.KINDS
    nodes   the pictures of the tree
    """
    words: list[list[str]] = []
    calls = []
    for call in recording.calls:
        call_words = list(call.words[:MAX_WORDS])
        if call_words not in words:
            words.append(call_words)
        calls.append([call.step, round(call.t, 2), call.sigma, words.index(call_words)])
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
