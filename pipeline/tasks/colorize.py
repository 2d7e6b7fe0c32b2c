"""Colorization: a grey picture gets colours as a prompt says, and keeps its lightness.

It is drawn anew, and at each step the predicted clean latents are moved along the one direction in
which the model's preview map sees lightness, to where the grey picture's latents stand: the range
of the grey is the picture's, its null space the model's. After DDNM, Wang, Yu and Zhang, arXiv
2212.00490. What comes out gives its a* and b* alone, through a guided filter; see colour.recolour.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, cast

from pydantic import Field

from .option_types import RequiredPicture, TaskOptions, number

if TYPE_CHECKING:
    import torch

    from ..events import Events
    from ..latents.initial_state import X0Hook
    from ..model import Models
    from ..options import ResolvedOptions

GUIDANCE = 0.4  # of the model's own: what suits drawing makes colours too strong
STEPS = 0.5  # of the model's own: colours are no nearer to the true ones with more
LUMA = (0.299, 0.587, 0.114)  # of R, G and B, ITU-R BT.601


class Options(TaskOptions):
    """A picture whose lightness is kept; its own colours, if it has any, are not looked at."""

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
        """Options in which the model filled every None; for type checkers."""

        cfg: float
        steps: int


def stream(models: Models, options: Options, *, words: bool = False) -> Events:
    """Draw the picture in its own size, coloured at the size at which the model works."""
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
        x0_hook=lightness(models.preview, start.clean),
        postprocess=lambda drawn: lab.recolour(picture, drawn, edges=True),
    )
    notes = options.picture.notes
    return engine.stream(models, options, words=words, initial_states=lambda _: start, notes=notes)


def lightness(preview, grey: torch.Tensor) -> X0Hook:
    """Gives the predicted clean latents the lightness of `grey` (1, C, h, w), as `preview`, an
    inside.Preview, sees it: x + pinv(A) (A grey - A x), A (1, C) the luma of its linear map."""
    import torch

    seen = (preview.weight @ torch.tensor(LUMA)).view(1, -1, 1, 1)
    back = seen / seen.square().sum().clamp(min=1e-12)

    def x0_hook(query, clean: torch.Tensor) -> torch.Tensor:
        off = ((grey.to(clean) - clean) * seen.to(clean)).sum(1, keepdim=True)
        return clean + off * back.to(clean)

    return x0_hook
