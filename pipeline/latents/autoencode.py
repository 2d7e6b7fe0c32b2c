"""Encode and decode with a loaded model's autoencoder, even where memory is short.

Each call holds the model's lock, runs on the request's backends, works in tiles where the picture
is large, and falls back to tiles where memory runs out. `vae.py` has the plain functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from .. import oom
from ..errors import InputError
from . import vae

if TYPE_CHECKING:
    from PIL import Image

    from ..backends import BackendSession
    from ..model import Models


def encode(
    models: Models, pixels: torch.Tensor, session: BackendSession | None = None
) -> torch.Tensor:
    """Encode pixels (1, 3, H, W) in 0..1 as scaled latents (1, C, h, w), float32 on the CPU.

    H and W must be multiples of the autoencoder's factor. `session`: the backends to use; default:
    the model's own. Raises InputError where memory runs out even in tiles.
    """
    height, width = pixels.shape[-2:]

    def once() -> torch.Tensor:
        return vae.encode(models.vae, pixels, models.device)

    found = _call(models, once, session, vae.is_large(width, height))
    if found is None:
        raise InputError(
            f"There is not enough memory on {models.device} for a picture of {width}x{height};"
            " give a smaller one, or start with --low-memory."
        )
    return found


def encode_picture(
    models: Models, image: Image.Image, session: BackendSession | None = None
) -> torch.Tensor:
    """Encode an RGB picture; see `encode`."""
    from ..images.open import to_tensor

    return encode(models, to_tensor(image), session)


def decode(
    models: Models,
    latents: torch.Tensor,
    session: BackendSession | None = None,
    on_short_memory: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Decode scaled latents (1, C, h, w) to pixels (1, 3, H, W) in 0..1, float32 on the CPU.

    `on_short_memory` is called before a second try in tiles. Raises InputError where memory runs
    out even in tiles, and where the autoencoder's output is not finite.
    """
    h, w = latents.shape[-2:]
    factor = vae.factor(models.vae)

    def once() -> torch.Tensor:
        return vae.decode(models.vae, latents, models.device)

    large = vae.is_large(w * factor, h * factor)
    found = _call(models, once, session, large, on_short_memory)
    if found is None:
        raise InputError(
            f"There is not enough memory on {models.device} to decode latents of {w}x{h}, not even"
            " in tiles; ask for a smaller picture, or start with --low-memory."
        )
    return found


def decode_picture(
    models: Models,
    latents: torch.Tensor,
    session: BackendSession | None = None,
    on_short_memory: Callable[[], None] = lambda: None,
) -> Image.Image:
    """Decode latents to an RGB picture; see `decode`."""
    return vae.to_image(decode(models, latents, session, on_short_memory))


def _call(
    models: Models,
    once: Callable[[], torch.Tensor],
    session: BackendSession | None,
    large: bool,
    on_short_memory: Callable[[], None] = lambda: None,
) -> torch.Tensor | None:
    """Return what `once` returns, or None where memory ran out, whole and in tiles."""
    backends = session or models.backends.open_session()

    def whole() -> torch.Tensor:
        return backends.call(once)

    def tiled() -> torch.Tensor:
        with vae.tiling(models.vae):
            return whole()

    def tiled_after_all() -> torch.Tensor:
        on_short_memory()
        return tiled()

    try:
        with models.lock:
            return oom.retry_on_oom(tiled if large else whole, tiled_after_all)
    except torch.OutOfMemoryError:
        return None
