"""A call of the model as pictures: what it saw, what it took for noise, what it believed in."""

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

# clean: the picture it believes in; latents: what it saw; noise: what it took for noise; cond and
# uncond: what it would believe in with the words and without; guidance: the first less the second,
# grey where they agree.
KINDS = ("clean", "latents", "noise", "cond", "uncond", "guidance")


def has_guidance(moment: ModelCall) -> bool:
    """Whether there are two halves of guidance to look at."""
    return moment.answer.cond is not None and moment.answer.uncond is not None


def decode_view(models: Any, moment: ModelCall, kind: str, prediction: str) -> Image.Image:
    """One of KINDS, decoded by the model's autoencoder, at the picture's size.

    prediction: what the model's output means, see RequestOrigin. InputError for another kind,
    and where there is no guidance to look at.
    """
    return vae.to_image(_pixels(models, moment, kind, prediction))


def _pixels(models: Any, moment: ModelCall, kind: str, prediction: str) -> torch.Tensor:
    if kind not in KINDS:
        raise InputError(f"There is no view {str(kind)[:40]!r}; there is {', '.join(KINDS)}.")
    if kind in ("cond", "uncond", "guidance") and not has_guidance(moment):
        raise InputError("There was no guidance at this step: the model was asked once.")
    if kind == "guidance":
        sides = [_pixels(models, moment, side, prediction) for side in ("cond", "uncond")]
        return ((sides[0] - sides[1]) / 2 + 0.5).clamp(0, 1)
    if kind in ("cond", "uncond"):
        query = Query(moment.latents, None, moment.step, moment.sigma)
        latents = predicted_clean(query, getattr(moment.answer, kind), prediction)
    else:
        latents = getattr(moment, kind)
    return autoencode.decode(models, latents)
