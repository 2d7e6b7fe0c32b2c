"""Decoded frames and word maps of recordings, for inside.js.

The browser gets a description of the open picture (view.py) and asks for frames and word maps as
it needs them, so that opening costs nothing and a second play needs no server.
"""

from __future__ import annotations

import base64
import io
import threading
from typing import Any

import torch
from PIL import Image

from pipeline.errors import InputError
from pipeline.introspection import decoded_views
from pipeline.introspection.recording import Recording, RecordingStore
from pipeline.lru import LruCache
from pipeline.model import Models
from pipeline.model_cache import ModelCache

from ...events import Broken
from ...texts import say
from ...ui.failures import hide_internal_errors
from .view import MAX_WORDS

LOSSLESS_PIXELS = 160 * 160  # of a frame up to which it is sent without loss
FRAME_SIDE = 512  # pixels: the longer side of a frame
CACHE_CHARACTERS = 64 << 20  # of data URLs that a server keeps


class FrameServer:
    """Answers inside.js: decoded frames and word maps of recordings.

    Decoded frames are cached. Nothing here waits in the queue; a lock lets one decoding run at a
    time beside a picture that is being drawn.
    """

    def __init__(self, model_cache: ModelCache, recordings: RecordingStore):
        self.model_cache, self.recordings = model_cache, recordings
        self._urls: LruCache[tuple, str] = LruCache(CACHE_CHARACTERS, len)
        self._decoding = threading.Lock()

    def frame(self, query: Any) -> dict[str, str]:
        """Return {"url": data URL} of a frame, {"evicted": ...} or {"error": sentence}.

        query: {"key": of the recording, "call": index of the model call, "kind": of KINDS}.
        """
        try:
            key, call, kind = query["key"], int(query["call"]), str(query["kind"])
            url = self._urls.get((key, call, kind))
            if url is not None:
                return {"url": url}
            recording = self.recordings.get(key)
            if recording is None:
                return {"evicted": "yes"}
            if not 0 <= call < len(recording.calls):
                return {"error": f"There is no call {call}."}
            with hide_internal_errors(), self._decoding:
                models = self._models(recording)
                image = decoded_views.decode_view(
                    models, recording.calls[call], kind, recording.origin.prediction
                )
            url = encode_frame(image)
            self._urls.put((key, call, kind), url)
            return {"url": url}
        except InputError as error:
            return {"error": str(error)}
        except (Broken, KeyError, TypeError, ValueError):
            return {"error": say("broken", "en")}

    def _models(self, recording: Recording) -> Models:
        name, digest, vae = recording.model
        models = self.model_cache.get(name, vae)
        if models.hash != digest:
            raise InputError(f"It was drawn by {name} {digest}; the one here is {models.hash}.")
        return models

    def maps(self, query: Any) -> dict[str, Any]:
        """Return {"grids": packed word maps}, {"evicted": ...} or {"error": sentence}.

        query: {"key": of the recording, "call": index of the model call, -1: mean of all calls}.
        Grids: one for each resolution, then one of all layers; see `pack_maps`.
        """
        try:
            recording, call = self.recordings.get(query["key"]), int(query["call"])
        except (KeyError, TypeError, ValueError):
            return {"error": say("broken", "en")}
        if recording is None:
            return {"evicted": "yes"}
        if not -1 <= call < len(recording.calls):
            return {"error": f"There is no call {call}."}
        return {"grids": [pack_maps(m[:MAX_WORDS]) for m in word_maps(recording, call)]}


def encode_frame(image: Image.Image) -> str:
    """Return a data URL: small pictures lossless, large ones scaled down and as JPEG."""
    small = image.copy()
    small.thumbnail((FRAME_SIDE, FRAME_SIDE))
    exact = small.width * small.height <= LOSSLESS_PIXELS
    data = io.BytesIO()
    small.save(data, "PNG" if exact else "JPEG", quality=90, subsampling=0)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(data.getvalue()).decode()


def word_maps(recording: Recording, call: int) -> list[torch.Tensor]:
    """Return maps (words, h, w) at each resolution and, last, over all layers.

    call: index of the model call; -1: the mean of all calls with the same words as the last.
    """
    model_calls = recording.calls
    if call >= 0:
        model_calls = model_calls[call : call + 1]
    last = model_calls[-1]
    if last.maps is None:
        return []
    same = [m for m in model_calls if m.words == last.words]
    rows = [[*m.grids, m.maps] for m in same]
    return [torch.stack([r.float() for r in column]).mean(0) for column in zip(*rows, strict=True)]


def pack_maps(maps: torch.Tensor) -> dict[str, Any]:
    """Return maps (words, h, w) as {"size": [h, w], "peak": largest value, "data": base64}.

    The data are uint8 (words, h, w): shares of the peak, 0 to 255.
    """
    peak = float(maps.max()) if maps.numel() else 0.0
    shares = (maps / max(peak, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    data = base64.b64encode(shares.contiguous().numpy().tobytes()).decode()
    return {"size": list(maps.shape[1:]), "peak": peak, "data": data}
