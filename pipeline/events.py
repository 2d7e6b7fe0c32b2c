"""The events that the engine yields: a Step for each call of the UNet, then the Result."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .metadata.save import save_picture

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from .latents.initial_state import InitialState
    from .latents.preview import Preview
    from .options import ResolvedOptions
    from .samplers import Answer


@dataclass(frozen=True, eq=False)
class RequestOrigin:
    """The inputs of one picture: enough to draw it again, or to continue it from any step.

    options        the options of the request, the model's defaults filled in; the request may have
                   several pictures
    initial_state  the state that sampling begins from
    seeds          seed and variation seed (None without a variation) of this picture
    prediction     what the model predicts: "epsilon" or "v_prediction"
    """

    options: ResolvedOptions
    initial_state: InitialState
    seeds: tuple[int, int | None]
    prediction: str


@dataclass(frozen=True)
class Step:
    """The event after one UNet call while a picture is drawn; it has the call's inputs and outputs.

    Some samplers make several calls in one sampling step.

    image        index of the picture in the request, 0 to count - 1
    count        number of pictures of the request
    index        number of the sampling step, 1 to `total`
    total        number of sampling steps of the picture
    seconds      time since the request began
    sigma        the noise level of `latents`, sqrt((1 - abar) / abar)
    latents      the UNet's input (1, C, h, w)
    clean        the clean latents x0 (1, C, h, w) that the UNet's output predicts
    width        width of the picture in pixels
    height       height of the picture in pixels
    t            the timestep that the UNet was given
    answer       the model output that is sent to the sampler
    origin       the inputs of the picture
    origin_step  the sampler's own step, from 0; it differs from index - 1 where a task with
                 several passes renumbers the steps
    words        the words of the prompt; empty unless word maps were requested
    maps         attention maps (words, h', w') fp32, one per word, averaged over all layers; None
                 unless requested
    grids        attention maps (words, h', w') for each resolution of the layers, coarsest first
    """

    image: int
    count: int
    index: int
    total: int
    seconds: float
    sigma: float
    latents: torch.Tensor
    clean: torch.Tensor
    width: int
    height: int
    t: float
    answer: Answer = field(repr=False)
    origin: RequestOrigin = field(repr=False)
    origin_step: int
    _preview: Preview = field(repr=False)
    words: tuple[str, ...] = ()
    maps: torch.Tensor | None = field(default=None, repr=False)
    grids: tuple[torch.Tensor, ...] = field(default=(), repr=False)

    @cached_property
    def preview(self) -> Image.Image:
        """The predicted clean latents as a coarse RGB picture of width x height pixels."""
        return self._preview.image(self.clean, self.width, self.height)


@dataclass(frozen=True)
class Result:
    """The last event of a request: its pictures and how they were made.

    images      the pictures; each has its parameters text in `info["parameters"]`
    parameters  the parameters text of each picture: prompt and options in A1111's format
    seeds       the seed of each picture
    options     the options of the request, the model's defaults filled in
    seconds     time that the request took
    metadata    what ran: model, device, backends and versions
    latents     the final latents (1, C, h, w) of each picture; empty if none was sampled
    origins     the inputs of each picture, in the order of `latents`
    warnings    sentences that say what was done otherwise than requested
    sheet       whether images[0] is a contact sheet of the other images
    """

    images: list[Image.Image]
    parameters: list[str]
    seeds: list[int]
    options: ResolvedOptions
    seconds: float
    metadata: dict[str, Any]
    latents: list[torch.Tensor]
    origins: list[RequestOrigin] = field(default_factory=list, repr=False)
    warnings: tuple[str, ...] = ()
    sheet: bool = False

    def save(self, path: str | Path) -> list[Path]:
        """Write the pictures to files and return their paths.

        One picture is written to `path`. Several are written beside it, for "name.png" as
        "name-1.png", "name-2.png", ...; if the first is a contact sheet (an overview) of the
        others, it is written to `path` itself.
        """
        path, first = Path(path), 0 if self.sheet else 1
        if len(self.images) == 1:
            return [save_picture(self.images[0], path)]
        return [
            save_picture(image, path.with_name(f"{path.stem}-{i}{path.suffix}" if i else path.name))
            for i, image in enumerate(self.images, first)
        ]


Events = Generator[Step | Result, None, None]
