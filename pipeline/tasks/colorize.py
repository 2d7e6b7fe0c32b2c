"""Colorization: give a grey picture colours that follow a prompt, at constant lightness.

DDNM (Wang, Yu and Zhang, arXiv 2212.00490): at each step the predicted x0 is corrected so that its
luma equals that of the grey picture. Luma is computed by the preview's linear map from latents to
RGB; whatever does not change it is left to the model. Of the result only a* and b* (CIELAB) are
used, see images.lab.recolour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from .option_types import RequiredPicture, TaskOptions, number

if TYPE_CHECKING:
    import torch

    from ..events import Events
    from ..latents.initial_state import X0Hook
    from ..latents.preview import Preview
    from ..model import Models
    from ..options import ResolvedOptions
    from ..samplers.base import Query

GUIDANCE = 0.4  # times the model's default guidance scale, which oversaturates
STEPS = 0.5  # times the model's default steps; more do not reduce the colour error
LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B, ITU-R BT.601


class Options(TaskOptions):
    """Fields of a colorization request: those of GenerateOptions, and the picture to colour."""

    picture: RequiredPicture = Field(description="The picture to colour")
    strength: Annotated[float, number(0, 1)] = Field(
        1.0, description="How much is drawn anew, 0 to 1: less gives fainter colours"
    )
    cfg: float | None = Field(
        None, description="Guidance scale, 0 to 30; default: two fifths of the model's own"
    )
    steps: int | None = Field(
        None, description="Sampler steps, 1 to 200; default: half of the model's own"
    )


if TYPE_CHECKING:

    class Resolved(Options, ResolvedOptions):
        """Options after Models.resolve, which replaces every None; only for type checkers."""

        cfg: float
        steps: int


def work(options: Options, defaults: Mapping[str, Any]) -> float:
    """Return the pixels times UNet calls of all pictures. defaults: the model's size and steps."""
    from .common import redrawn_size, sampling_work

    size = redrawn_size(options, defaults, options.picture.image.size)
    usual = {**defaults, "steps": max(1, round(STEPS * defaults["steps"]))}
    return options.count * sampling_work(options, usual, size, options.strength)


def stream(models: Models, options: Options, *, words: bool = False) -> Events:
    """Colour a picture: yield a Step after each denoising step, then the Result, of the same size.

    Colours that the picture already has are ignored. The colours are drawn at the options' width
    and height; where these are missing, at a size near the model's training size. words: whether
    the Steps carry attention maps of the prompt's words.
    """
    from .. import engine
    from ..images import lab
    from ..images.open import fit_image
    from .common import resolve_size, start_from_image

    picture, usual = options.picture.image, models.defaults
    suited = {
        "cfg": max(1.0, GUIDANCE * usual["cfg"]),
        "steps": max(1, round(STEPS * usual["steps"])),
    }
    left_out = {k: v for k, v in suited.items() if getattr(options, k) is None}
    options = options.model_copy(update=left_out)
    options = cast("Resolved", resolve_size(models, options, picture.size))
    grey = lab.grey(fit_image(picture, options.width, options.height, "stretch"))
    start = start_from_image(models, options, grey, {"Denoising strength": options.strength})
    assert start.clean is not None
    start = replace(
        start,
        x0_hook=lightness_hook(models.preview, start.clean),
        postprocess=lambda drawn: lab.recolour(picture, drawn, edges=True),
    )
    notes = options.picture.notes
    return engine.stream(models, options, words=words, initial_states=lambda _: start, notes=notes)


def lightness_hook(preview: Preview, grey: torch.Tensor) -> X0Hook:
    """Return a function that at each step gives the predicted x0 the luma of a grey picture.

    It is the `x0_hook` of an InitialState and returns x0 + pinv(A) (A grey - A x0), where A (1, C)
    maps latents to luma. grey: the picture's latents (1, C, h, w). preview: the linear map from
    latents to RGB, of which A is made.
    """
    import torch

    luma = (preview.weight @ torch.tensor(LUMA)).view(1, -1, 1, 1)
    inverse = luma / luma.square().sum().clamp(min=1e-12)

    def x0_hook(query: Query, clean: torch.Tensor) -> torch.Tensor:
        off = ((grey.to(clean) - clean) * luma.to(clean)).sum(1, keepdim=True)
        return clean + off * inverse.to(clean)

    return x0_hook
