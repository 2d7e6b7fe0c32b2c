"""Decode the tensors of a recorded model call to pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from ..latents import autoencode, vae
from ..samplers.base import Query
from ..samplers.prediction import predicted_clean

if TYPE_CHECKING:
    from PIL import Image

    from .recording import ModelCall

# clean: the predicted x0; latents: the UNet's input; noise: the predicted noise; cond and uncond:
# x0 as predicted with the prompt and with the negative prompt alone; guidance: cond minus uncond,
# mid-grey where they agree.
KINDS = ("clean", "latents", "noise", "cond", "uncond", "guidance")


def has_guidance(call: ModelCall) -> bool:
    """Return whether the call had classifier-free guidance, a conditional and another output."""
    return call.answer.cond is not None and call.answer.uncond is not None


def decode_view(models: Any, call: ModelCall, kind: str, prediction: str) -> Image.Image:
    """One of KINDS, decoded by the model's autoencoder, at the picture's size.

    prediction: what the model's output means, see RequestOrigin. InputError for another kind,
    and where there is no guidance to look at.
    """
    return vae.to_image(_pixels(models, call, kind, prediction))


def _pixels(models: Any, call: ModelCall, kind: str, prediction: str) -> torch.Tensor:
    if kind not in KINDS:
        raise InputError(f"There is no view {str(kind)[:40]!r}; there is {', '.join(KINDS)}.")
    if kind in ("cond", "uncond", "guidance") and not has_guidance(call):
        raise InputError("There was no guidance at this step: the model was asked once.")
    if kind == "guidance":
        sides = [_pixels(models, call, side, prediction) for side in ("cond", "uncond")]
        return ((sides[0] - sides[1]) / 2 + 0.5).clamp(0, 1)
    if kind in ("cond", "uncond"):
        query = Query(call.latents, torch.tensor(call.t), call.step, call.sigma)
        latents = predicted_clean(query, getattr(call.answer, kind), prediction)
    else:
        latents = getattr(call, kind)
    return autoencode.decode(models, latents)
