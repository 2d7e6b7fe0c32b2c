"""Runs a request: prompt, noise, sampler, denoiser, autoencoder, picture; an event for every step.

Requests of several users may run at once: each has its own coroutines and generators, and a lock of
the model is held only while one of its networks runs. Closing the stream stops the request between
two steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from . import oom
from .backends import Running
from .denoising.attention_maps import WordMaps
from .denoising.denoiser import Denoiser
from .errors import InputError
from .events import RequestOrigin, Result, Step
from .latents import autoencode, noise, vae
from .latents.initial_state import Start, beside, steered
from .metadata.parameters import describe_run, parameters_text
from .options import GenerateOptions
from .prompt import resources
from .prompt.encode import Conditioning, encode_prompts
from .samplers import Query, start
from .samplers.prediction import predicted_clean


def stream(
    models,
    options: GenerateOptions,
    *,
    words: bool = False,
    starts: Callable[[int], Start] = lambda image: Start(),
    notes: Iterable[str] = (),
) -> Iterator[Step | Result]:
    """Step events of each image in turn, then the Result. Closing the iterator stops the work.

    `words`: each Step also tells where each word of the prompt went, on every backend; not where
    the picture is drawn in tiles. starts: where image i begins, see start.py. notes: sentences that
    go before the result's warnings.
    """
    began = time.perf_counter()
    options = models.resolve(options)
    factor = vae.factor(models.vae)
    for name, pixels in (("width", options.width), ("height", options.height)):
        if pixels % factor:
            raise InputError(f"This model draws multiples of {factor} pixels; {name} is {pixels}.")
    asked = resources.find_resources(models, options)
    positive, negative, said = hear(models, options, asked)
    drawing = _Drawing(
        models,
        options,
        asked,
        positive,
        negative,
        running=models.backends.start(options.attention, options.group_norm),
        warnings=[*notes, *models.warnings, *asked.warnings, *said],
        words=words,
        began=began,
    )
    images, texts, seeds, finals, origins = [], [], [], [], []
    for image in range(options.count):
        first, pair = starts(image), noise.seeds(options, image)
        origin = RequestOrigin(options, first, pair, drawing.prediction)
        latents = yield from drawing.steps(image, origin)
        picture = drawing.picture(latents)
        if first.finish:
            picture = first.finish(picture)
        text = parameters_text(models, options, pair, asked, first.fields)
        picture.info["parameters"] = text
        images.append(picture)
        texts.append(text)
        seeds.append(pair[0])
        finals.append(latents)
        origins.append(origin)
    yield Result(
        images,
        texts,
        seeds,
        options,
        time.perf_counter() - began,
        describe_run(models, drawing.running),
        finals,
        origins,
        tuple(drawing.warnings),
    )


def hear(models, options: GenerateOptions, asked: resources.PromptResources):
    """What the UNet hears of the prompts, with the request's LoRAs; see prompt.encode.encode."""
    with models.lock:
        models.adapters.install(asked.adapters)
        return encode_prompts(
            models.text,
            asked.prompt,
            asked.negative,
            clip_skip=options.clip_skip,
            embeddings=asked.embeddings,
        )


@dataclass
class _Drawing:
    """What the pictures of one request share."""

    models: Any
    options: GenerateOptions
    asked: resources.PromptResources
    positive: Conditioning
    negative: Conditioning
    running: Running
    warnings: list[str]
    words: bool
    began: float

    @property
    def prediction(self) -> str:
        return self.models.scheduler_config.get("prediction_type", "epsilon")

    def steps(self, image: int, origin: RequestOrigin):
        """The Steps of one picture; returns its final latents."""
        models, options, prediction = self.models, self.options, self.prediction
        first, (seed, second) = origin.start, origin.seeds
        maps = self.words and not first.tile  # a tile's maps are not the picture's
        denoiser = self._denoiser(first)
        generator = noise.generator_for(seed)
        coroutine = self._sampler(first, generator, seed, second)
        try:
            query = next(coroutine)
            for answers, reseed in first.past:
                for answer in answers:
                    query = coroutine.send(answer)
                if reseed is not None:
                    generator.manual_seed(reseed)
            while True:
                heard = self.positive.at(query.step)[2] if maps else []
                with models.lock:
                    answer, seen = self._answer(denoiser, query, maps)
                if first.steer:
                    answer = steered(answer, query, prediction, first.steer)
                places = [place for _, place in heard]
                yield Step(
                    image=image,
                    count=options.count,
                    index=query.step + 1,
                    total=options.steps - first.begin,
                    seconds=time.perf_counter() - self.began,
                    sigma=float(query.sigma),
                    latents=query.x,
                    clean=predicted_clean(query, answer.output, prediction),
                    width=options.width,
                    height=options.height,
                    t=float(query.t),
                    answer=answer,
                    origin=origin,
                    origin_step=query.step,
                    _preview=models.preview,
                    words=tuple(word for word, _ in heard),
                    maps=seen and seen.words(places),
                    grids=seen.grids(places) if seen else (),
                )
                query = coroutine.send(answer)
        except StopIteration as done:
            return done.value
        finally:
            coroutine.close()

    def picture(self, latents: torch.Tensor) -> Image.Image:
        """Decode final latents; in tiles where the picture is large or memory runs out."""
        return autoencode.decode_picture(
            self.models, latents, self.running, lambda: self._warn(oom.DECODED_IN_TILES)
        )

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def _denoiser(self, first: Start) -> Denoiser:
        models, options = self.models, self.options
        size = options.width, options.height
        seen = first.beside if first.beside is not None else beside(models, None, None, size)
        return Denoiser(
            models,
            self.positive,
            self.negative,
            cfg=options.cfg,
            rescale=options.cfg_rescale,
            width=options.width,
            height=options.height,
            beside=seen,
            tile=first.tile,
        )

    def _sampler(self, first: Start, generator, seed: int, second: int | None):
        models, options = self.models, self.options
        scale = vae.factor(models.vae)
        shape = models.vae.config.latent_channels, options.height // scale, options.width // scale
        variation = second, options.variation_strength
        drawn = noise.first_noise(generator, *shape, variation=variation)
        return start(
            options.sampler,
            options.schedule,
            models.scheduler_config,
            drawn if first.noise is None else first.noise,
            options.steps,
            generator,
            seed,
            begin=first.begin,
            clean=first.clean,
        )

    def _answer(self, denoiser: Denoiser, query: Query, maps: bool):
        """The denoiser's answer and the maps of its call, if asked for; where memory runs out, with
        the halves of guidance one by one."""
        seen = None

        def ask():
            nonlocal seen
            self.models.adapters.install(self.asked.adapters)
            seen = WordMaps(*query.x.shape[-2:]) if maps else None  # of this try alone
            return denoiser(query, seen)

        def apart():
            denoiser.together = False
            self.warnings.append(oom.GUIDANCE_SPLIT)
            return self.running.call(ask)

        sparer = [apart] if denoiser.guided and denoiser.together else []
        try:
            return oom.retry_on_oom(lambda: self.running.call(ask), *sparer), seen
        except torch.OutOfMemoryError:
            pass
        raise InputError(_too_large(self.models, self.options, denoiser, self.running))


def joined(results: list[Result], options: GenerateOptions) -> Result:
    """The pictures of several requests that answer one, `options`."""

    def all_of(name: str) -> list:
        return [item for result in results for item in getattr(result, name)]

    return replace(
        results[-1],
        **{name: all_of(name) for name in ("images", "parameters", "seeds", "latents", "origins")},
        options=options,
        seconds=sum(result.seconds for result in results),
        warnings=tuple(dict.fromkeys(all_of("warnings"))),
    )


def untouched(models, options: GenerateOptions, image: Image.Image, more: Mapping[str, Any]):
    """The Result of a task that draws nothing: `image` with its parameters text."""
    began = time.perf_counter()
    options = models.resolve(options)
    seeds = noise.seeds(options, 0)
    text = parameters_text(models, options, seeds, resources.find_resources(models, options), more)
    image.info["parameters"] = text
    metadata = describe_run(models, models.backends.start())
    seconds = time.perf_counter() - began
    yield Result([image], [text], [options.seed], options, seconds, metadata, [])


def _too_large(models, options, denoiser, running) -> str:
    """One sentence that names a size that was tried and fits."""
    fits = None
    factor = vae.factor(models.vae)
    grain = factor * 2 ** (len(models.unet.config.block_out_channels) - 1)
    for share in (0.75, 0.5, 0.25):
        width, height = (
            max(64, int(side * share) // grain * grain) for side in (options.width, options.height)
        )
        h, w = height // factor, width // factor
        x = torch.zeros((1, models.vae.config.latent_channels, h, w))
        query = Query(x, torch.tensor(500), 0, 1.0)
        if denoiser.beside is not None:
            denoiser.beside = denoiser.beside[..., :h, :w]
        try:
            running.call(lambda query=query: denoiser(query))
            fits = f"{width}x{height}"
        except Exception as error:
            if not isinstance(error, InputError) and not oom.is_out_of_memory(error):
                raise
        oom.free_memory()
        if fits:
            break
    size = f"{options.width}x{options.height}"
    hint = f"{fits} fits" if fits else "start with --low-memory, or with device cpu"
    return f"A picture of {size} does not fit into the free memory of {models.device}; {hint}."
