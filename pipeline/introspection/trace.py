"""Trace one picture through every stage, from prompt to PNG text: output, shape and seconds.

The engine itself draws the picture. It holds the model's lock only while a network runs, so a lock
that measures for how long it is held measures the networks. Tokens, context and first noise are not
part of the engine's events; they are computed again here with the engine's own functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from .. import engine
from ..events import Result, Step
from ..latents import noise, vae
from ..options import GenerateOptions
from ..prompt import resources
from ..prompt.chunks import chunks, window
from ..prompt.encode import token_ids

if TYPE_CHECKING:
    import torch

    from ..model import Models
    from ..options import ResolvedOptions

T = TypeVar("T")

# {key of the stage: (source file, function or class that computes it)}, in order.
STAGES = {
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
    """The output of one stage on the way from prompt to picture, to show and time it.

    There is one for each key of STAGES, in their order, but "step" comes once per sampling step.

    key      "prompt", "tokens", "context", "noise", "step", "latents", "picture" or "parameters"
    output   for "prompt" and "parameters" a text; for "tokens" a list of (id, token) for each chunk
             of 77; for "context" a tensor (1, K, E); for "noise" and "latents" a tensor
             (1, C, h, w); for "step" the engine's Step; for "picture" a PIL image
    shape    shape of the output; of a text its length
    seconds  the time that it took; None if it is not measured
    """

    key: str
    output: Any
    shape: tuple[int, ...] = ()
    seconds: float | None = None


@dataclass
class TimedLock:
    """A context manager around a model's `lock` that measures for how long it is held.

    As the lock is held while a network runs, this is the networks' time. `held` gets the seconds of
    each use.
    """

    lock: Any
    held: list[float] = field(default_factory=list)

    def __enter__(self) -> None:
        self.lock.__enter__()
        self._since = time.perf_counter()

    def __exit__(self, *failure: Any) -> None:
        self.held.append(time.perf_counter() - self._since)
        self.lock.__exit__(*failure)


def stages(models: Models, options: GenerateOptions) -> Iterator[Stage]:
    """Draw one picture and yield the output, shape and time of every stage from prompt to picture.

    options: of the request, of which the first picture is drawn. Closing the generator stops the
    work. Raises InputError for options that cannot be drawn.
    """
    resolved = models.resolve(options.model_copy(update={"count": 1}))
    request, seconds = _timed(lambda: resources.find_resources(models, resolved))
    yield Stage("prompt", resolved.prompt, (len(resolved.prompt),), seconds)

    tokenizer, segments = models.tokenizer, request.prompt.parts[0].segments
    rows, seconds = _timed(lambda: chunks(tokenizer, segments, request.embeddings))
    ids = [token_ids(tokenizer, row) for row in rows]
    tokens = [list(zip(row, tokenizer.convert_ids_to_tokens(row), strict=True)) for row in ids]
    yield Stage("tokens", tokens, (len(rows), window(tokenizer)), seconds)

    (positive, _, _), seconds = _timed(lambda: engine.encode_request(models, resolved, request))
    context = positive.at(0)[0]
    yield Stage("context", context.float().cpu(), tuple(context.shape), seconds)

    first_noise, seconds = _timed(lambda: _first_noise(models, resolved))
    yield Stage("noise", first_noise, tuple(first_noise.shape), seconds)

    result, lock = None, TimedLock(models.lock)
    with closing(engine.stream(replace(models, lock=lock), resolved)) as events:
        step: Step | None = None
        spent, counted = 0.0, 1  # the lock is held first for the text encoder
        for event in events:
            if step and (isinstance(event, Result) or event.index != step.index):
                yield Stage("step", step, tuple(step.latents.shape), spent)
                spent = 0.0
            if isinstance(event, Result):
                result = event
            else:
                spent += sum(lock.held[counted:])
                step, counted = event, len(lock.held)
    assert result is not None
    latents, picture, text = result.latents[0], result.images[0], result.parameters[0]
    yield Stage("latents", latents.float().cpu(), tuple(latents.shape))
    shape = (1, len(picture.getbands()), picture.height, picture.width)
    yield Stage("picture", picture, shape, lock.held[-1])
    yield Stage("parameters", text, (len(text),), result.seconds)


def _first_noise(models: Models, options: ResolvedOptions) -> torch.Tensor:
    """Draw again the noise (1, C, h, w) that sampling begins from, from the seed in the options."""
    seed, variation_seed = noise.seeds(options, 0)
    factor = vae.factor(models.vae)
    shape = models.vae.config.latent_channels, options.height // factor, options.width // factor
    variation = variation_seed, options.variation_strength
    return noise.first_noise(noise.generator_for(seed), *shape, variation=variation)


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return function(), time.perf_counter() - began
