"""The whole way of a picture: what every stage made of it, its shape and its seconds.

The picture is the engine's own, drawn by `models.stream`. Its engine holds the model's lock just
while a network runs, so a lock that keeps time measures the networks. What comes before is heard
and drawn once more here, because the engine keeps it to itself: the same functions, measured alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from .. import engine
from ..events import Result
from ..latents import noise, vae
from ..options import GenerateOptions
from ..prompt import resources
from ..prompt.chunks import chunks, window
from ..prompt.encode import token_ids

STAGES = {  # in their order: the function of this repository that does it
    "prompt": ("pipeline/prompt/syntax.py", "parse"),
    "tokens": ("pipeline/prompt/chunks.py", "chunks"),
    "context": ("pipeline/prompt/encode.py", "encode_prompts"),
    "noise": ("pipeline/latents/noise.py", "first_noise"),
    "step": ("pipeline/denoising/denoiser.py", "Denoiser"),
    "latents": ("pipeline/samplers/__init__.py", "make_sampler"),
    "picture": ("pipeline/latents/vae.py", "decode"),
    "parameters": ("pipeline/metadata/infotext.py", "build"),
}


@dataclass(frozen=True)
class Stage:
    """One stage is done. There is a "step" for each of the user's steps, else one of each key.

    made: prompt and parameters a text; tokens rows of (id, as the tokenizer writes it); context
    (1, K, E); noise and latents (1, C, h, w); step the engine's Step; picture a PIL image.
    shape: of what was made. seconds: None where no time of its own was measured.
    """

    key: str
    made: Any
    shape: tuple[int, ...] = ()
    seconds: float | None = None


@dataclass
class Timed:
    """A lock that notes for how long it was held, each time."""

    lock: Any
    held: list[float] = field(default_factory=list)

    def __enter__(self) -> None:
        self.lock.__enter__()
        self._since = time.perf_counter()

    def __exit__(self, *failure: Any) -> None:
        self.held.append(time.perf_counter() - self._since)
        self.lock.__exit__(*failure)


def stages(models: Any, options: GenerateOptions) -> Iterator[Stage]:
    """Every Stage of one picture, in order. Closing the iterator stops the work."""
    options = models.resolve(options.model_copy(update={"count": 1}))
    asked, seconds = _timed(resources.find_resources, models, options)
    yield Stage("prompt", options.prompt, (len(options.prompt),), seconds)

    tokenizer, segments = models.tokenizer, asked.prompt.parts[0].segments
    rows, seconds = _timed(chunks, tokenizer, segments, asked.embeddings)
    numbers = [token_ids(tokenizer, row) for row in rows]
    named = [list(zip(row, tokenizer.convert_ids_to_tokens(row), strict=True)) for row in numbers]
    yield Stage("tokens", named, (len(rows), window(tokenizer)), seconds)

    (positive, _, _), seconds = _timed(engine.encode_request, models, options, asked)
    context = positive.at(0)[0]
    yield Stage("context", context.float().cpu(), tuple(context.shape), seconds)

    drawn, seconds = _timed(_noise, models, options)
    yield Stage("noise", drawn, tuple(drawn.shape), seconds)

    lock = Timed(models.lock)
    with closing(engine.stream(replace(models, lock=lock), options)) as events:
        step, spent, counted = None, 0.0, 1  # the first time is the text encoder's
        for event in events:
            done = event if isinstance(event, Result) else None
            if step is not None and (done or event.index != step.index):
                yield Stage("step", step, tuple(step.latents.shape), spent)
                spent = 0.0
            if done is None:
                spent += sum(lock.held[counted:])
                step, counted = event, len(lock.held)
    latents, picture = done.latents[0], done.images[0]
    yield Stage("latents", latents.float().cpu(), tuple(latents.shape))
    shape = (1, len(picture.getbands()), picture.height, picture.width)
    yield Stage("picture", picture, shape, lock.held[-1])
    yield Stage("parameters", done.parameters[0], (len(done.parameters[0]),), done.seconds)


def _noise(models: Any, options: GenerateOptions):
    """The noise that the engine begins with, drawn again from its seed."""
    seed, second = noise.seeds(options, 0)
    factor = vae.factor(models.vae)
    shape = models.vae.config.latent_channels, options.height // factor, options.width // factor
    variation = second, options.variation_strength
    return noise.first_noise(noise.generator_for(seed), *shape, variation=variation)


def _timed(function, *given):
    began = time.perf_counter()
    return function(*given), time.perf_counter() - began
