"""Serve decoded frames and word maps of recorded pictures to inside.js.

The browser gets a description of the open picture (view.py) and asks for each frame and word map
when it first shows it. So opening a picture is cheap, and replaying it needs no server.
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
from pipeline.introspection.word_maps import average_word_maps
from pipeline.lru import LruCache
from pipeline.model import Models
from pipeline.model_cache import ModelCache

from ...events import Broken
from ...texts import say
from ...ui.failures import error_sentence, hide_internal_errors
from .view import MAX_WORDS

LOSSLESS_PIXELS = (
    160 * 160
)  # a frame of at most so many pixels is sent as PNG, a larger one as JPEG
FRAME_SIDE = 512  # pixels: the longer side of a frame
CACHE_CHARACTERS = 64 << 20  # total length of the data URLs that the server caches
CACHE_SECONDS = 3600  # after its last use, a data URL is dropped


class FrameServer:
    """Gives inside.js, the viewer of the tab Look inside, images of a picture's recorded calls.

    These are decoded frames (the latents or the predicted picture at one model call), which are
    cached, and cross-attention maps of the prompt's words. The methods are called outside Gradio's
    queue, so they also answer while a picture is drawn; a lock lets only one frame be decoded at a
    time.
    """

    def __init__(self, model_cache: ModelCache, recordings: RecordingStore):
        self.model_cache, self.recordings = model_cache, recordings
        self._urls: LruCache[tuple, str] = LruCache(CACHE_CHARACTERS, len, CACHE_SECONDS)
        self._decoding = threading.Lock()

    def frame(self, query: Any) -> dict[str, str]:
        """Decode what a recorded model call saw or predicted; return {"url": the image's data URL}.

        query: {"key": key of the picture's recording, "call": index of the model call, from 0,
        "kind": one of decoded_views.KINDS, such as "clean"}; it comes from the browser and is
        checked. Returns {"evicted": "yes"} if the recording is no longer in memory, and {"error":
        sentence} for a wrong query and for an internal error.
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
            return {"error": error_sentence(error, "en")}
        except (Broken, KeyError, TypeError, ValueError):
            return {"error": say("broken", "en")}

    def _models(self, recording: Recording) -> Models:
        name, digest, vae = recording.model
        models = self.model_cache.get(name, vae)
        if models.hash != digest:
            raise InputError(f"It was drawn by {name} {digest}; the one here is {models.hash}.")
        return models

    def maps(self, query: Any) -> dict[str, Any]:
        """Return {"grids": [...]}, cross-attention maps that show where each word of a prompt acts.

        There is one item for each resolution of the UNet's layers, and last the mean over all
        layers, each packed by `pack_maps`, for at most MAX_WORDS words. query: {"key": key of the
        picture's recording, "call": index of the model call, from 0, or -1 for the mean over all
        calls}. Returns {"evicted": "yes"} if the recording is no longer in memory, and {"error":
        sentence} for a wrong query.
        """
        try:
            recording, call = self.recordings.get(query["key"]), int(query["call"])
        except (KeyError, TypeError, ValueError):
            return {"error": say("broken", "en")}
        if recording is None:
            return {"evicted": "yes"}
        if not -1 <= call < len(recording.calls):
            return {"error": f"There is no call {call}."}
        maps = average_word_maps(recording, call)
        return {"grids": [pack_maps(m[:MAX_WORDS]) for m in maps]}


def encode_frame(image: Image.Image) -> str:
    """Return a decoded picture as a data URL for the viewer, at most FRAME_SIDE pixels a side.

    Up to LOSSLESS_PIXELS pixels it is a PNG, above that a JPEG of quality 90.
    """
    small = image.copy()
    small.thumbnail((FRAME_SIDE, FRAME_SIDE))
    exact = small.width * small.height <= LOSSLESS_PIXELS
    data = io.BytesIO()
    small.save(data, "PNG" if exact else "JPEG", quality=90, subsampling=0)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(data.getvalue()).decode()


def pack_maps(maps: torch.Tensor) -> dict[str, Any]:
    """Pack cross-attention maps of a prompt's words, a tensor (words, h, w), for the browser.

    Returns {"size": [h, w], "peak": largest value, "data": base64}. The data are uint8 values in
    the tensor's order, scaled so that 255 stands for the peak.
    """
    peak = float(maps.max()) if maps.numel() else 0.0
    shares = (maps / max(peak, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    data = base64.b64encode(shares.contiguous().numpy().tobytes()).decode()
    return {"size": list(maps.shape[1:]), "peak": peak, "data": data}
