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
    """Encode pixels (1, 3, H, W) in [0, 1] as latents (1, C, h, w) scaled for the UNet.

    The latents are fp32 on the CPU. It uses the model's lock, and tiles if the picture is large or
    memory runs out. H and W must be multiples of vae.factor. session: the attention and GroupNorm
    backends of the request; None means the model's default ones. Raises InputError if memory runs
    out even in tiles.
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
    """Encode an RGB picture as latents (1, C, h, w) scaled for the UNet, fp32 on the CPU.

    Width and height must be multiples of vae.factor. It works in tiles if the picture is large or
    memory runs out. session: the attention and GroupNorm backends of the request; None means the
    model's default ones. Raises InputError if memory runs out even in tiles.
    """
    from ..images.open import to_tensor

    return encode(models, to_tensor(image), session)


def decode(
    models: Models,
    latents: torch.Tensor,
    session: BackendSession | None = None,
    on_short_memory: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Decode latents (1, C, h, w), scaled as the UNet's, to pixels (1, 3, H, W) in [0, 1].

    The pixels are fp32 on the CPU. It uses the model's lock, and tiles if the picture is large or
    memory runs out. session: the attention and GroupNorm backends of the request; None means the
    model's default ones. on_short_memory: called if memory runs out, before the second attempt in
    tiles. Raises InputError if memory runs out even in tiles, and if the autoencoder's output is
    not finite.
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
    """Decode latents (1, C, h, w), scaled as the UNet's, to an RGB picture.

    It works in tiles if the picture is large or memory runs out. session: the attention and
    GroupNorm backends of the request; None means the model's default ones. on_short_memory: called
    if memory runs out, before the second attempt in tiles. Raises InputError if memory runs out
    even in tiles, and if the autoencoder's output is not finite.
    """
    return vae.to_image(decode(models, latents, session, on_short_memory))


def _call(
    models: Models,
    once: Callable[[], torch.Tensor],
    session: BackendSession | None,
    large: bool,
    on_short_memory: Callable[[], None] = lambda: None,
) -> torch.Tensor | None:
    """Run the autoencoder: call `once`, and if memory runs out, once more with it in tiles.

    once: encodes or decodes. It is called with the model's lock and the backends of `session`
    (None: the model's default ones). large: whether the first attempt uses tiles too.
    on_short_memory: called before the second attempt. Returns the result of `once`, or None if
    memory runs out in both attempts.
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
