"""Decode the latents of a recorded model call to pictures, such as the predicted noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from ..latents import autoencode, vae
from ..samplers.base import Query
from ..samplers.prediction import predicted_clean

if TYPE_CHECKING:
    from PIL import Image

    from ..model import Models
    from .recording import ModelCall

# The views that can be decoded. clean: the predicted x0. latents: the UNet's input. noise: the
# predicted noise. cond, uncond: the x0 predicted with the prompt alone and with the negative prompt
# alone. guidance: the difference of the pictures cond and uncond, mid-grey where they are equal.
KINDS = ("clean", "latents", "noise", "cond", "uncond", "guidance")


def has_guidance(call: ModelCall) -> bool:
    """Return whether a recorded UNet call was guided: whether it has both outputs.

    They are the output for the prompt alone and the output for the negative prompt alone.
    """
    return call.answer.cond is not None and call.answer.uncond is not None


def decode_view(models: Models, call: ModelCall, kind: str, prediction: str) -> Image.Image:
    """Decode latents of one recorded UNet call to a picture, to show them to a user.

    kind: which, one of KINDS. "clean": the predicted x0; "latents": the UNet's input; "noise": the
    predicted noise; "cond", "uncond": the x0 predicted with the prompt and with the negative prompt
    alone; "guidance": the difference of the pictures of these two, mid-grey where equal.
    prediction: what the model predicts, "epsilon" or "v_prediction". Raises InputError for an
    unknown kind, and for "cond", "uncond" and "guidance" if the call was without guidance.
    """
    return vae.to_image(_pixels(models, call, kind, prediction))


def _pixels(models: Models, call: ModelCall, kind: str, prediction: str) -> torch.Tensor:
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
