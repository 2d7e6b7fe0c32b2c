"""Draw the pictures of one request: encode the prompts, draw noise, sample, decode.

`stream` is a generator that yields an event for every call of the UNet; closing it stops the
request between two calls. Requests of several users may run at the same time: each has its own
samplers and random generators, and holds the model's lock only while one of the networks runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from . import oom
from .backends import BackendSession
from .denoising.attention_maps import WordMaps
from .denoising.denoiser import Denoiser
from .errors import InputError
from .events import Events, RequestOrigin, Result, Step
from .latents import autoencode, noise, vae
from .latents.initial_state import InitialState, apply_x0_hook, inpaint_conditioning
from .metadata.parameters import describe_run, parameters_text
from .options import GenerateOptions, ResolvedOptions
from .prompt import resources
from .prompt.encode import Conditioning, encode_prompts
from .samplers import Answer, Query, make_sampler
from .samplers.prediction import predicted_clean

if TYPE_CHECKING:
    from .model import Models


def stream(
    models: Models,
    options: GenerateOptions,
    *,
    words: bool = False,
    initial_states: Callable[[int], InitialState] = lambda image: InitialState(),
    notes: Iterable[str] = (),
) -> Events:
    """Draw the pictures of one request: yield a Step for every UNet call, at last the Result.

    The pictures are drawn one after the other. Closing the generator stops the work.

    words           whether each Step also has the prompt's words and their attention maps, whatever
                    the attention backend; never for images that are drawn in tiles
    initial_states  function from the image's index, 0 to count - 1, to the state it begins from
    notes           sentences to put before the other warnings of the Result

    Raises InputError for options that the model cannot draw, and if memory does not suffice.
    """
    began = time.perf_counter()
    resolved = models.resolve(options)
    factor = vae.factor(models.vae)
    for name, pixels in (("width", resolved.width), ("height", resolved.height)):
        if pixels % factor:
            raise InputError(f"This model draws multiples of {factor} pixels; {name} is {pixels}.")
    prompt_resources = resources.find_resources(models, resolved)
    positive, negative, warnings = encode_request(models, resolved, prompt_resources)
    drawing = _Drawing(
        models,
        resolved,
        prompt_resources,
        positive,
        negative,
        session=models.backends.open_session(resolved.attention, resolved.group_norm),
        warnings=[*notes, *models.warnings, *prompt_resources.warnings, *warnings],
        words=words,
        began=began,
    )
    images, texts, seeds, finals, origins = [], [], [], [], []
    for image in range(resolved.count):
        initial, pair = initial_states(image), noise.seeds(resolved, image)
        origin = RequestOrigin(resolved, initial, pair, drawing.prediction)
        latents = yield from drawing.steps(image, origin)
        picture = drawing.picture(latents)
        if initial.postprocess:
            picture = initial.postprocess(picture)
        text = parameters_text(models, resolved, pair, prompt_resources, initial.fields)
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
        resolved,
        time.perf_counter() - began,
        describe_run(models, drawing.session),
        finals,
        origins,
        tuple(drawing.warnings),
    )


def encode_request(
    models: Models, options: GenerateOptions, prompt_resources: resources.PromptResources
) -> tuple[Conditioning, Conditioning, list[str]]:
    """Encode prompt and negative prompt of a request, with its LoRAs and textual inversions.

    Returns three things: the text context for the UNet of the prompt, that of the negative prompt
    (both may change from step to step), and a list of warning sentences. It holds the model's lock.
    prompt_resources: the two parsed prompts with the LoRAs and textual inversions that they name.
    """
    with models.lock:
        models.adapters.install(prompt_resources.adapters)
        return encode_prompts(
            models.text,
            prompt_resources.prompt,
            prompt_resources.negative,
            clip_skip=options.clip_skip,
            embeddings=prompt_resources.embeddings,
        )


@dataclass
class _Drawing:
    """What all images of one request share, and the methods that draw an image.

    options           the options of the request, the model's defaults filled in
    prompt_resources  the parsed prompts with the LoRAs and textual inversions that they name
    positive          text context of the prompt for the UNet, which may change from step to step
    negative          that of the negative prompt
    session           the attention and GroupNorm backends of the request
    warnings          sentences for the Result
    words             whether Steps have attention maps of the prompt's words
    began             time.perf_counter() at the beginning of the request
    """

    models: Models
    options: ResolvedOptions
    prompt_resources: resources.PromptResources
    positive: Conditioning
    negative: Conditioning
    session: BackendSession
    warnings: list[str]
    words: bool
    began: float

    @property
    def prediction(self) -> str:
        return self.models.scheduler_config.get("prediction_type", "epsilon")

    def steps(self, image: int, origin: RequestOrigin) -> Generator[Step, None, torch.Tensor]:
        """Sample one image: yield a Step per UNet call, return the final latents (1, C, h, w).

        image: its index in the request. origin: the state that sampling begins from, and the seeds.
        """
        models, options, prediction = self.models, self.options, self.prediction
        initial, (seed, variation_seed) = origin.initial_state, origin.seeds
        with_maps = self.words and not initial.tile  # a tile's maps are not the picture's
        denoiser = self._denoiser(initial)
        generator = noise.generator_for(seed)
        sampler = self._sampler(initial, generator, seed, variation_seed)
        try:
            query = next(sampler)
            for answers, reseed in initial.replayed_answers:
                for answer in answers:
                    query = sampler.send(answer)
                if reseed is not None:
                    generator.manual_seed(reseed)
            while True:
                word_spans = self.positive.at(query.step)[2] if with_maps else []
                with models.lock:
                    answer, maps = self._answer(denoiser, query, with_maps)
                if initial.x0_hook:
                    answer = apply_x0_hook(answer, query, prediction, initial.x0_hook)
                spans = [span for _, span in word_spans]
                yield Step(
                    image=image,
                    count=options.count,
                    index=query.step + 1,
                    total=options.steps - initial.start_step,
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
                    words=tuple(word for word, _ in word_spans),
                    maps=maps.average(spans) if maps else None,
                    grids=maps.by_resolution(spans) if maps else (),
                )
                query = sampler.send(answer)
        except StopIteration as done:
            return done.value
        finally:
            sampler.close()

    def picture(self, latents: torch.Tensor) -> Image.Image:
        """Decode final latents (1, C, h, w) to an RGB picture.

        Decodes in tiles if the picture is large or memory runs out; the latter adds a warning.
        """
        return autoencode.decode_picture(
            self.models, latents, self.session, lambda: self._warn(oom.DECODED_IN_TILES)
        )

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def _denoiser(self, initial: InitialState) -> Denoiser:
        models, options = self.models, self.options
        conditioning = initial.inpaint_conditioning
        if conditioning is None:
            size = options.width, options.height
            conditioning = inpaint_conditioning(models, None, None, size)
        return Denoiser(
            models,
            self.positive,
            self.negative,
            cfg=options.cfg,
            rescale=options.cfg_rescale,
            width=options.width,
            height=options.height,
            inpaint_conditioning=conditioning,
            tile=initial.tile,
        )

    def _sampler(
        self,
        initial: InitialState,
        generator: torch.Generator,
        seed: int,
        variation_seed: int | None,
    ) -> Generator[Query, Answer, torch.Tensor]:
        models, options = self.models, self.options
        factor = vae.factor(models.vae)
        shape = models.vae.config.latent_channels, options.height // factor, options.width // factor
        variation = variation_seed, options.variation_strength
        drawn = noise.first_noise(generator, *shape, variation=variation)
        return make_sampler(
            options.sampler,
            options.schedule,
            models.scheduler_config,
            drawn if initial.noise is None else initial.noise,
            options.steps,
            generator,
            seed,
            start_step=initial.start_step,
            clean=initial.clean,
        )

    def _answer(
        self, denoiser: Denoiser, query: Query, with_maps: bool
    ) -> tuple[Answer, WordMaps | None]:
        """Call the UNet for a sampler's query; return the guided output and the word maps.

        Word maps are the cross attention of the prompt's words in this call; None unless
        `with_maps`. If memory runs out, it tries again with two UNet calls, for the unconditional
        and the conditional output. If that does not fit either, it raises InputError, which names a
        smaller size that fits.
        """
        maps: WordMaps | None = None

        def call() -> Answer:
            nonlocal maps
            self.models.adapters.install(self.prompt_resources.adapters)
            maps = WordMaps(*query.x.shape[-2:]) if with_maps else None  # new for each attempt
            return denoiser(query, maps)

        def call_in_halves() -> Answer:
            denoiser.batched_cfg = False
            self._warn(oom.GUIDANCE_SPLIT)
            return self.session.call(call)

        fallbacks = [call_in_halves] if denoiser.guided and denoiser.batched_cfg else []
        try:
            return oom.retry_on_oom(lambda: self.session.call(call), *fallbacks), maps
        except torch.OutOfMemoryError:
            pass
        raise InputError(_too_large(self.models, self.options, denoiser, self.session))


def join_results(results: list[Result], options: ResolvedOptions) -> Result:
    """Join the Results of several requests to one Result, for tasks that draw in several requests.

    options: those of the joined Result. Pictures, seeds and latents are concatenated in order,
    seconds are added, and repeated warnings are removed. Everything else is that of the last
    Result.
    """

    def all_of(name: str) -> list[Any]:
        return [item for result in results for item in getattr(result, name)]

    return replace(
        results[-1],
        images=all_of("images"),
        parameters=all_of("parameters"),
        seeds=all_of("seeds"),
        latents=all_of("latents"),
        origins=all_of("origins"),
        options=options,
        seconds=sum(result.seconds for result in results),
        warnings=tuple(dict.fromkeys(all_of("warnings"))),
    )


def finish_without_drawing(
    models: Models, options: ResolvedOptions, image: Image.Image, fields: Mapping[str, Any]
) -> Events:
    """Yield the Result of a task that calls no UNet, such as upscaling without a second pass.

    image: the finished picture; it is given its parameters text, which lists the options in A1111's
    format. fields: additional {name: value} for that text.
    """
    began = time.perf_counter()
    resolved = models.resolve(options)
    seeds = noise.seeds(resolved, 0)
    prompt_resources = resources.find_resources(models, resolved)
    text = parameters_text(models, resolved, seeds, prompt_resources, fields)
    image.info["parameters"] = text
    metadata = describe_run(models, models.backends.open_session())
    seconds = time.perf_counter() - began
    yield Result([image], [text], [resolved.seed], resolved, seconds, metadata, [])


def _too_large(
    models: Models, options: ResolvedOptions, denoiser: Denoiser, session: BackendSession
) -> str:
    """Return an error sentence: the size does not fit into memory, and a smaller one that does.

    It tries three smaller sizes with one model call each; the first that fits is named.
    """
    fits = None
    factor = vae.factor(models.vae)
    multiple = factor * 2 ** (len(models.unet.config.block_out_channels) - 1)
    for scale in (0.75, 0.5, 0.25):
        width, height = (
            max(64, int(side * scale) // multiple * multiple)
            for side in (options.width, options.height)
        )
        h, w = height // factor, width // factor
        x = torch.zeros((1, models.vae.config.latent_channels, h, w))
        query = Query(x, torch.tensor(500), 0, 1.0)
        if denoiser.inpaint_conditioning is not None:
            denoiser.inpaint_conditioning = denoiser.inpaint_conditioning[..., :h, :w]
        try:
            session.call(partial(denoiser, query))
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
