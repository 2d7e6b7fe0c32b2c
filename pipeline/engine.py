"""Runs a request: prompt, noise, sampler, denoiser, autoencoder, picture; an event for every step.

Requests of several users may run at once: each has its own coroutines and generators, and a lock of
the model is held only while one of its networks runs. Closing the stream stops the request between
two steps.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

from . import __version__, infotext, noise, prompt, vae
from .denoiser import Denoiser, predicted_clean
from .errors import InputError
from .files import save_picture
from .inside import Preview, WordMaps
from .options import GenerateOptions
from .samplers import SAMPLERS, SCHEDULES, start


@dataclass(frozen=True)
class Step:
    """One of the user's steps is done.

    image: 0-based index in the batch of `count`; index: 1..total; seconds since the request began;
    latents: the model's input at this step (1, C, h, w); clean: the latents it takes for clean.
    words and maps, where asked for: the prompt's words and where each went, (words, h', w').
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
    _preview: Preview = field(repr=False)
    words: tuple[str, ...] = ()
    maps: torch.Tensor | None = field(default=None, repr=False)

    @cached_property
    def preview(self) -> Image.Image:
        """The clean picture that the model believes in at this step, coarsely."""
        return self._preview.image(self.clean, self.width, self.height)


@dataclass(frozen=True)
class Result:
    """The pictures of a request, each with its parameters text in `info["parameters"]`."""

    images: list[Image.Image]
    parameters: list[str]
    seeds: list[int]
    options: GenerateOptions
    seconds: float
    metadata: dict
    latents: list[torch.Tensor]

    def save(self, path: str | Path) -> list[Path]:
        """Write the pictures as PNG: `path`, or for several `name-1.png`, `name-2.png`, ..."""
        path = Path(path)
        if len(self.images) == 1:
            return [save_picture(self.images[0], path)]
        return [
            save_picture(image, path.with_name(f"{path.stem}-{i}{path.suffix}"))
            for i, image in enumerate(self.images, 1)
        ]


def stream(models, options: GenerateOptions, *, words: bool = False) -> Iterator[Step | Result]:
    """Step events of each image in turn, then the Result. Closing the iterator stops the work.

    `words`: each Step also tells where each word of the prompt went, on every backend.
    """
    began = time.perf_counter()
    options = models.resolve(options)
    factor = 2 ** (len(models.vae.config.block_out_channels) - 1)
    for name, pixels in (("width", options.width), ("height", options.height)):
        if pixels % factor:
            raise InputError(f"This model draws multiples of {factor} pixels; {name} is {pixels}.")
    with models.lock:
        context, uncond = prompt.encode(
            models.tokenizer, models.text_encoder, options.prompt, options.negative
        )
        places = prompt.words(models.tokenizer, options.prompt) if words else []
    running = models.backends.start(options.attention, options.group_norm)
    denoiser = Denoiser(models.unet, context, uncond, options.cfg, models.backends.processor)
    prediction = models.scheduler_config.get("prediction_type", "epsilon")
    images, texts, seeds, finals = [], [], [], []
    for image in range(options.count):
        seed = options.seed + image
        generator = noise.generator_for(options.seed, image)
        shape = (models.unet.config.in_channels, options.height // factor, options.width // factor)
        coroutine = start(
            options.sampler,
            options.schedule,
            models.scheduler_config,
            noise.first_noise(generator, *shape),
            options.steps,
            generator,
            seed,
        )
        answer = latents = None
        try:
            while True:
                query = coroutine.send(answer)

                def ask(query=query):
                    seen = WordMaps(*query.x.shape[-2:]) if words else None
                    return denoiser(query, seen), seen

                with models.lock:
                    answer, seen = running.call(ask)
                yield Step(
                    image=image,
                    count=options.count,
                    index=query.step + 1,
                    total=options.steps,
                    seconds=time.perf_counter() - began,
                    sigma=float(query.sigma),
                    latents=query.x,
                    clean=predicted_clean(query, answer.output, prediction),
                    width=options.width,
                    height=options.height,
                    _preview=models.preview,
                    words=tuple(word for word, _ in places),
                    maps=seen and seen.words([p for _, p in places]),
                )
        except StopIteration as done:
            latents = done.value
        finally:
            coroutine.close()
        with models.lock:
            pixels = running.call(lambda latents=latents: vae.decode(models.vae, latents))
        picture = vae.to_image(pixels)
        text = parameters(models, options, seed)
        picture.info["parameters"] = text
        images.append(picture)
        texts.append(text)
        seeds.append(seed)
        finals.append(latents)
    metadata = describe(models, running)
    yield Result(images, texts, seeds, options, time.perf_counter() - began, metadata, finals)


def parameters(models, options: GenerateOptions, seed: int) -> str:
    """The A1111 "parameters" text of one picture."""
    return infotext.build(
        options.prompt,
        options.negative,
        {
            "Steps": options.steps,
            "Sampler": SAMPLERS[options.sampler].label,
            "Schedule type": SCHEDULES[options.schedule].label,
            "CFG scale": options.cfg,
            "Seed": seed,
            "Size": f"{options.width}x{options.height}",
            "Model hash": models.hash,
            "Model": models.name,
            "Version": f"glassbox {__version__}",
        },
    )


def describe(models, running) -> dict:
    """What really ran: model, device, types, backends, versions."""
    return {
        "model": models.name,
        "model_hash": models.hash,
        "device": str(models.device),
        "dtype": str(models.dtype).removeprefix("torch."),
        "attention": running.attention,
        "vae_attention": running.vae_attention,
        "group_norm": running.group_norm,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "glassbox": __version__,
    }
