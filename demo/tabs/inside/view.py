"""What the tab Look inside shows: a tree of recorded pictures, and one of them step by step.

The browser gets a description of what is open and asks for pictures and word maps as it needs them
(`Eye`), so that opening costs nothing and playing needs no server once it was seen.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.errors import InputError
from pipeline.introspection import decoded_views
from pipeline.introspection.recording import Recording, RecordingStore, plain_options
from pipeline.lru import LruCache
from pipeline.samplers import SAMPLERS, SCHEDULES

from ...events import Broken
from ...texts import say
from ...ui.failures import hide_internal_errors
from ...ui.images import data_url

EXACT = 160 * 160  # pixels of a frame up to which it is sent without loss
SIDE = 512  # pixels: the larger side of a frame
THUMB = 128
CACHE = 64 << 20  # characters of frames that a server keeps
MOST_WORDS = 120
LABELS = (
    *("kind", "step", "play", "pause", "words", "words_hint", "every", "this", "all_layers"),
    *("compare", "divider", "tree", "side", "loading", "sigma", "time", "layers", "no_words"),
    *(f"kind_{kind}" for kind in decoded_views.KINDS),
    *(f"about_{kind}" for kind in decoded_views.KINDS),
)


@dataclass(frozen=True)
class Node:
    """A picture of the tree, kept with the visitor: enough to make it again where its recording
    was dropped. lineage: see InitialState; () for one that began from another picture."""

    key: str
    parent: str | None
    at: int | None
    change: dict[str, Any]
    thumb: str
    prompt: str
    steps: int
    model: tuple[str, str, str | None]
    lineage: tuple[dict[str, Any], ...]


Tree = dict[str, Node]


def node(recording: Recording) -> Node:
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
        thumb=data_url(recording.image, THUMB),
        prompt=recording.options.prompt,
        steps=recording.steps,
        model=recording.model,
        lineage=tuple(dict(x) for x in lineage) if plain else (),
    )


def grown(tree: Tree, recording: Recording) -> Tree:
    """The tree with one more picture; another one begins where its parent is not there."""
    made = node(recording)
    if made.parent is None:
        return {made.key: made}
    return (tree if made.parent in tree else {}) | {made.key: made}


def described_change(change: dict[str, Any], language: str) -> str:
    """What a branch changed, in a few words."""
    if not change:
        return say("inside_nothing", language)
    tables = {"sampler": SAMPLERS, "schedule": SCHEDULES}
    parts = []
    for name, value in change.items():
        shown = tables[name][value].label if name in tables else value
        shown = f"{shown:g}" if isinstance(shown, float) else str(shown)
        parts.append(f"{say(f'inside_{name}', language)}: {shown}")
    return ", ".join(parts)


def description(recording: Recording, tree: Tree, language: str) -> str:
    """The open picture and its tree for inside.js, as JSON."""
    words: list[list[str]] = []
    calls = []
    for call in recording.calls:
        shown = list(call.words[:MOST_WORDS])
        if shown not in words:
            words.append(shown)
        calls.append([call.step, round(call.t, 2), call.sigma, words.index(shown)])
    nodes = [
        {
            "key": n.key,
            "parent": n.parent,
            "thumb": n.thumb,
            "name": n.prompt if n.parent is None else described_change(n.change, language),
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


class Eye:
    """What inside.js asks the server for: frames and word maps of recordings, by their keys.

    Decoded frames are kept, the ones used longest ago make room. Nothing here takes the place in
    the queue; a lock lets one decoding run at a time beside a picture that is being drawn.
    """

    def __init__(self, model_cache: Any, recordings: RecordingStore):
        self.model_cache, self.recordings = model_cache, recordings
        self._urls: LruCache[tuple, str] = LruCache(CACHE, len)
        self._decoding = threading.Lock()

    def frame(self, asked: Any) -> dict[str, str]:
        """{"url": data URL} of {"key", "call", "kind"}; {"error": sentence} where there is none,
        {"gone": sentence} where the recording was dropped."""
        try:
            key, call, kind = asked["key"], int(asked["call"]), str(asked["kind"])
            url = self._urls.get((key, call, kind))
            if url is not None:
                return {"url": url}
            recording = self.recordings.get(key)
            if recording is None:
                return {"gone": "dropped"}
            if not 0 <= call < len(recording.calls):
                return {"error": f"There is no call {call}."}
            with hide_internal_errors(), self._decoding:
                models = self._models(recording)
                image = decoded_views.decode_view(
                    models, recording.calls[call], kind, recording.origin.prediction
                )
            url = _url(image)
            self._urls.put((key, call, kind), url)
            return {"url": url}
        except InputError as error:
            return {"error": str(error)}
        except (Broken, KeyError, TypeError, ValueError):
            return {"error": say("broken", "en")}

    def _models(self, recording: Recording):
        name, digest, vae = recording.model
        models = self.model_cache.get(name, vae)
        if models.hash != digest:
            raise InputError(f"It was drawn by {name} {digest}; the one here is {models.hash}.")
        return models

    def maps(self, asked: Any) -> dict[str, Any]:
        """Word maps of {"key", "call"}, of every call together where call is -1: for each
        resolution, all of them together last, {"size": [h, w], "peak": largest value, "data":
        bytes (words, h, w) in base64 as shares of it}."""
        try:
            recording, call = self.recordings.get(asked["key"]), int(asked["call"])
        except (KeyError, TypeError, ValueError):
            return {"error": say("broken", "en")}
        if recording is None:
            return {"gone": "dropped"}
        if not -1 <= call < len(recording.calls):
            return {"error": f"There is no call {call}."}
        return {"grids": [_packed(m[:MOST_WORDS]) for m in word_maps(recording, call)]}


def _url(image) -> str:
    """Small pictures as they are, to the pixel; of large ones a smaller one that is like it."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    exact = small.width * small.height <= EXACT
    data = io.BytesIO()
    small.save(data, "PNG" if exact else "JPEG", quality=90, subsampling=0)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(data.getvalue()).decode()


def word_maps(recording: Recording, call: int) -> list[torch.Tensor]:
    """Maps (words, h, w) at each resolution and, last, over all layers; -1: the mean of all calls
    that heard the same words as the last."""
    model_calls = recording.calls
    if call >= 0:
        model_calls = model_calls[call : call + 1]
    last = model_calls[-1]
    if last.maps is None:
        return []
    same = [m for m in model_calls if m.words == last.words]
    rows = [[*m.grids, m.maps] for m in same]
    return [torch.stack([r.float() for r in column]).mean(0) for column in zip(*rows, strict=True)]


def _packed(maps: torch.Tensor) -> dict[str, Any]:
    peak = float(maps.max()) if maps.numel() else 0.0
    shares = (maps / max(peak, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    data = base64.b64encode(shares.contiguous().numpy().tobytes()).decode()
    return {"size": list(maps.shape[1:]), "peak": peak, "data": data}
