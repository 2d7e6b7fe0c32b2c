"""Encode and decode pictures with a loaded model's autoencoder, in tiles if needed.

Each call holds the model's lock and uses the backends of the request. It works in tiles if the
picture is large, and also if memory runs out. vae.py has the functions without all this.
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
    """Encode pixels (1, 3, H, W) in [0, 1] as scaled latents (1, C, h, w), fp32 on the CPU.

    H and W must be multiples of vae.factor. session: the backends to use; None means the model's
    default backends. Raises InputError if memory runs out even in tiles.
    """
    height, width = pixels.shape[-2:]

    def once() -> torch.Tensor:
        return vae.encode(models.vae, pixels, models.device)

    latents = _call(models, once, session, vae.is_large(width, height))
    if latents is None:
        raise InputError(
            f"There is not enough memory on {models.device} for a picture of {width}x{height};"
            " give a smaller one, or start with --low-memory."
        )
    return latents


def encode_picture(
    models: Models, image: Image.Image, session: BackendSession | None = None
) -> torch.Tensor:
    """Encode an RGB picture as scaled latents (1, C, h, w), fp32 on the CPU; see `encode`."""
    from ..images.open import to_tensor

    return encode(models, to_tensor(image), session)


def decode(
    models: Models,
    latents: torch.Tensor,
    session: BackendSession | None = None,
    on_short_memory: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Decode scaled latents (1, C, h, w) to pixels (1, 3, H, W) in [0, 1], fp32 on the CPU.

    session: the backends to use; None means the model's default backends. on_short_memory: called
    if memory runs out, before the second attempt in tiles. Raises InputError if memory runs out
    even in tiles, and if the autoencoder's output is not finite.
    """
    h, w = latents.shape[-2:]
    factor = vae.factor(models.vae)

    def once() -> torch.Tensor:
        return vae.decode(models.vae, latents, models.device)

    large = vae.is_large(w * factor, h * factor)
    pixels = _call(models, once, session, large, on_short_memory)
    if pixels is None:
        raise InputError(
            f"There is not enough memory on {models.device} to decode latents of {w}x{h}, not even"
            " in tiles; ask for a smaller picture, or start with --low-memory."
        )
    return pixels


def decode_picture(
    models: Models,
    latents: torch.Tensor,
    session: BackendSession | None = None,
    on_short_memory: Callable[[], None] = lambda: None,
) -> Image.Image:
    """Decode scaled latents (1, C, h, w) to an RGB picture; see `decode`."""
    return vae.to_image(decode(models, latents, session, on_short_memory))


def _call(
    models: Models,
    once: Callable[[], torch.Tensor],
    session: BackendSession | None,
    large: bool,
    on_short_memory: Callable[[], None] = lambda: None,
) -> torch.Tensor | None:
    """Call `once`, which encodes or decodes, with the lock and backends; again in tiles if needed.

    large: whether to use tiles at once. Returns the result of `once`, or None if memory runs out
    in both attempts.
    """
    backends = session or models.backends.open_session()

    def untiled() -> torch.Tensor:
        return backends.call(once)

    def tiled() -> torch.Tensor:
        with vae.tiling(models.vae):
            return untiled()

    def tiled_after_all() -> torch.Tensor:
        on_short_memory()
        return tiled()

    try:
        with models.lock:
            return oom.retry_on_oom(tiled if large else untiled, tiled_after_all)
    except torch.OutOfMemoryError:
        return None
