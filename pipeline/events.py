"""The events that the engine yields: a Step for each call of the model, then the Result."""

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
    """What one picture was drawn from: enough to draw it again, or to branch from any step."""

    options: ResolvedOptions  # of the whole request
    initial_state: InitialState
    seeds: tuple[int, int | None]  # seed and variation seed of this picture
    prediction: str  # what the model's output means: epsilon or v_prediction


@dataclass(frozen=True)
class Step:
    """One call of the model is done. A sampler may make several calls for one of the user's steps.

    image         0-based index of the picture in a batch of `count`
    index         the user's step, 1 to `total`
    seconds       since the request began
    t, sigma      the timestep that the UNet was given, and the noise level of `latents`
    latents       the UNet's input (1, C, h, w)
    clean         the clean latents x0 that its output predicts (1, C, h, w)
    answer        what the sampler was sent
    origin_step   the sampler's own step, from 0, where a task renumbers `index` and `total`
    words, maps   where asked for: the prompt's words and the attention to each, (words, h', w')
    grids         the same at each resolution of the UNet's layers, the coarsest first
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
        """The predicted clean picture as a coarse RGB preview, width x height."""
        return self._preview.image(self.clean, self.width, self.height)


@dataclass(frozen=True)
class Result:
    """The pictures of a request, each with its parameters text in `info["parameters"]`."""

    images: list[Image.Image]
    parameters: list[str]
    seeds: list[int]
    options: ResolvedOptions
    seconds: float
    metadata: dict[str, Any]
    latents: list[torch.Tensor]
    origins: list[RequestOrigin] = field(default_factory=list, repr=False)  # one per `latents`
    warnings: tuple[str, ...] = ()  # sentences: what was done otherwise than requested
    sheet: bool = False  # whether images[0] is a contact sheet of the others

    def save(self, path: str | Path) -> list[Path]:
        """Write the pictures and return their paths: one as `path`, several as `name-1.png`,
        `name-2.png`, ..., and a contact sheet of them as `path` itself."""
        path, first = Path(path), 0 if self.sheet else 1
        if len(self.images) == 1:
            return [save_picture(self.images[0], path)]
        return [
            save_picture(image, path.with_name(f"{path.stem}-{i}{path.suffix}" if i else path.name))
            for i, image in enumerate(self.images, first)
        ]


Events = Generator[Step | Result, None, None]
