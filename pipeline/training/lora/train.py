"""A LoRA that teaches a model one character from a handful of pictures.

The pictures and their prompt are learned as in DreamBooth (Ruiz et al., arXiv 2208.12242), where
asked for with prior preservation: pictures that the model drew of the class itself are learned
beside them, so that the class stays what it was. Only the small matrices learn, on a copy of the
UNet, so a model that serves meanwhile is untouched.

`train` is a generator of events. Closing it stops after the step at hand and leaves a checkpoint,
from which `resume` goes on to the same weights as an unbroken run.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors import SafetensorError

from ... import engine, oom
from ...errors import InputError
from ...metadata.save import save_picture
from ...options import GenerateOptions
from .. import hardware
from ..emoji.unet import velocity_loss
from ..loop import Trainer, _Log, newest_checkpoint
from . import files as lora_files
from .data import Example, Lesson, digest, examples, lesson, with_backgrounds
from .layers import LoraLayers
from .options import LoraOptions, check_name, defaults, settled

EVERY = 10  # steps between two rows of the log


@dataclass(frozen=True)
class Progress:
    """A step is done, or before the first one a picture of the class was drawn.

    step: 1..total; loss: of this step, None while pictures of the class are drawn; mean: of the
    last steps; seconds: of training in all; preview: what the LoRA draws now, where one was due.
    """

    step: int
    total: int
    loss: float | None
    mean: float | None
    seconds: float
    preview: Image.Image | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """The end: `path` is used by writing <lora:name:1>, `other` is the same under the other names.

    notes: sentences, such as which pictures were left out.
    """

    name: str
    path: Path
    other: Path
    steps: int
    seconds: float
    loss: float | None
    notes: tuple[str, ...] = ()


class Learner(Trainer):
    """The training loop one step at a time; a save that fails keeps the checkpoint before.

    The rate falls to zero along a cosine (arXiv 1608.03983) until step `total`,
    without which so short a training ends in noise.
    """

    def __init__(self, *args: Any, total: int, **more: Any):
        super().__init__(*args, **more)
        self.peaks, self.total = self.rates, total

    def learn(self) -> float:
        began = time.monotonic()
        share = (1 + math.cos(math.pi * min(self.step / self.total, 1))) / 2
        self.rates = [peak * share for peak in self.peaks]
        loss = self._one_step()["loss"]
        self.seconds += time.monotonic() - began
        return loss

    def save(self) -> Path:
        try:
            return super().save()
        except (OSError, SafetensorError) as error:
            lora_files.drop(self.folder / f".checkpoint-{self.step:08d}.safetensors.part")
            kept = newest_checkpoint(self.folder)
            stays = f"{kept.name} stays" if kept else "nothing was saved before"
            raise InputError(
                f"Cannot save step {self.step} in {self.folder}: {lora_files.reason(error)};"
                f" {stays}. Make room and resume."
            ) from None


def train(models: Any, options: LoraOptions) -> Iterator[Progress | Trained]:
    """Progress after each step, at last Trained. InputError in one sentence for bad input.

    models: what pipeline.load returns; nothing of it is changed.
    """
    options = settled(models, options)
    own, notes = examples(options.images, options.prompt, options.size)
    if models.vocabulary is not None:
        own = with_backgrounds(own, options.prompt)
    check_name(options)
    if options.resume and not newest_checkpoint(options.folder):
        notes.append(f"{options.folder} holds no checkpoint: this starts afresh.")
    classes = []
    for drawn in _class_pictures(models, options):
        classes.append(drawn)
        yield Progress(0, options.steps, None, None, 0.0, drawn.picture, tuple(notes))
    material = lesson(models, own, classes, options.size, options.flip)
    try:
        learner, layers = _learner(models, options, material, digest(own + classes))
        yield from _steps(models, options, learner, layers, notes, len(own))
        return
    except Exception as error:
        if not oom.is_out_of_memory(error):
            raise
    oom.free_memory()
    raise InputError(
        f"There is not enough memory on {models.device} to train on pictures of"
        f" {options.size}x{options.size}; take a smaller size or batch."
    )


def _class_pictures(models: Any, options: LoraOptions) -> Iterator[Example]:
    """The model's own pictures of the class, drawn once and kept in the run's folder."""
    if not options.prior_prompt.strip():
        return
    folder = options.folder / "class"
    _make(folder)
    for i in range(options.prior_count):
        path = folder / f"{i:04d}.png"
        if not path.exists():
            seed = (options.seed + i) % 2**32
            drawn = models.generate(
                prompt=options.prior_prompt, seed=seed, width=options.size, height=options.size
            )
            save_picture(drawn.images[0], path)
        with Image.open(path) as picture:
            yield Example(picture.convert("RGB"), options.prior_prompt)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to {folder}: {lora_files.reason(error)}.") from None


def _copy(models: Any) -> torch.nn.Module:
    """The UNet to learn on: frozen, on backends that run backward, in bf16 on GPUs that have it."""
    with models.lock:
        models.adapters.install(())
        unet = copy.deepcopy(models.unet)
    unet.requires_grad_(False)
    kind = models.device.type
    half = kind == "cuda" and torch.cuda.is_bf16_supported(False)
    unet.to(torch.bfloat16 if half else torch.float32)
    if kind == "cuda":
        unet.enable_gradient_checkpointing()
    unet.train()
    hardware.restore(unet)
    hardware.install(unet, str(models.device), "auto", "auto")
    return unet


def _learner(
    models: Any, options: LoraOptions, material: Lesson, pictures: str
) -> tuple[Learner, LoraLayers]:
    unet = _copy(models)
    layers = LoraLayers(unet, options.layers, options.rank, options.alpha, options.seed)
    optimizer = torch.optim.AdamW(
        layers.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    shift, empty = defaults(models).shift, defaults(models).empty
    prediction = models.scheduler_config.get("prediction_type", "epsilon")
    # Where the last noise level holds no picture at all, its share is kept from being exactly zero.
    alphas = DDIMScheduler.from_config(models.scheduler_config).alphas_cumprod.clamp(min=2**-24)
    half = unet.dtype == torch.bfloat16
    autocast = half or (models.device.type == "cpu" and hardware.bf16_is_fast("cpu"))

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        clean, context, more = material.batch(options.batch, generator, models.device, empty)
        loss = velocity_loss(
            functools.partial(unet, **more),
            clean,
            context,
            alphas,
            generator,
            prediction=prediction,
            shift=shift,
            autocast=autocast,
        )
        return {"loss": loss}

    kept = ("prompt", "rank", "alpha", "rate", "batch", "layers", "size", "flip", "seed")
    config = {k: getattr(options, k) for k in kept}
    config |= {"prior": options.prior_prompt, "model": models.hash, "pictures": pictures}
    _make(options.folder)
    learner = Learner(
        options.folder,
        layers,
        optimizer,
        step,
        config=config,
        total=options.steps,
        batch=options.batch,
        warmup=20,
        ema_decay=0.0,  # so few steps need no average
    )
    if options.resume:
        try:
            learner.resume()
        except ValueError as error:
            raise InputError(str(error)) from None
    return learner, layers


def _steps(
    models: Any,
    options: LoraOptions,
    learner: Learner,
    layers: LoraLayers,
    notes: list[str],
    pictures: int,
) -> Iterator[Progress | Trained]:
    """The steps that are left, then the files."""
    due = {round(options.steps * (i + 1) / options.previews) for i in range(options.previews)}
    end = None if options.minutes is None else time.monotonic() + options.minutes * 60
    log = _open_log(options.folder, learner.step)
    loss = mean = None
    saved = learner.step
    try:
        while learner.step < options.steps and (end is None or time.monotonic() < end):
            loss = learner.learn()
            if not math.isfinite(loss):
                raise InputError(
                    f"Training went astray at step {learner.step}: the loss is not finite; choose"
                    " a lower rate."
                )
            mean = loss if mean is None else 0.95 * mean + 0.05 * loss
            if learner.step % EVERY == 0 or learner.step == options.steps:
                _row(log, learner, loss, mean)
            if learner.step % options.checkpoint_steps == 0:
                learner.save()
                saved = learner.step
            preview = _preview(models, options, layers, learner) if learner.step in due else None
            yield Progress(
                learner.step, options.steps, loss, mean, learner.seconds, preview, tuple(notes)
            )
    except GeneratorExit:
        learner.save()
        raise
    finally:
        log.close()
        with models.lock:
            models.adapters.install(())  # a preview's matrices are not kept
    if saved != learner.step or not newest_checkpoint(options.folder):
        learner.save()
    facts = {k: getattr(options, k) for k in ("name", "prompt", "rank", "alpha", "rate", "batch")}
    facts |= {"size": options.size, "seed": options.seed}
    metadata = lora_files.describe(models, **facts, steps=learner.step, pictures=pictures)
    matrices, config = layers.matrices(), models.unet.config
    naming, other = options.naming, next(n for n in lora_files.NAMINGS if n != options.naming)
    beside = options.folder / f"{options.name}-{other}.safetensors"
    lora_files.write(beside, matrices, options.alpha, config, other, metadata)
    lora_files.write(options.path, matrices, options.alpha, config, naming, metadata)
    yield Trained(
        options.name, options.path, beside, learner.step, learner.seconds, mean, tuple(notes)
    )


def _open_log(folder: Path, step: int) -> _Log:
    try:
        return _Log(folder / "log.csv", step)
    except OSError as error:
        raise InputError(f"Cannot write to {folder}: {lora_files.reason(error)}.") from None


def _row(log: _Log, learner: Learner, loss: float, mean: float) -> None:
    speed = learner.batch * learner.step / max(learner.seconds, 1e-9)
    try:
        log.write(learner.step, learner.seconds, speed, {"loss": loss, "mean": mean})
    except OSError as error:
        raise InputError(
            f"Cannot write to {learner.folder}: {lora_files.reason(error)}; the last checkpoint"
            " stays. Make room and resume."
        ) from None


class _Wearing:
    """The model's adapters, with the LoRA in the making always put on too."""

    def __init__(self, adapters: Any, fitted: Any):
        self.adapters, self.fitted = adapters, fitted
        self.load = adapters.load

    def install(self, active) -> None:
        self.adapters.install((*active, (self.fitted, 1.0, 1.0)))


def _preview(
    models: Any, options: LoraOptions, layers: LoraLayers, learner: Learner
) -> Image.Image:
    """What the LoRA draws now, always from the same noise; kept as preview-STEP.png."""
    fitted = models.adapters.fit(layers.as_file(Path(options.name)))
    wearing = replace(models, adapters=_Wearing(models.adapters, fitted))
    asked = GenerateOptions(
        prompt=options.preview_prompt or options.prompt,
        seed=options.seed,
        width=options.size,
        height=options.size,
    )
    *_, result = engine.stream(wearing, asked)
    save_picture(result.images[0], options.folder / f"preview-{learner.step:06d}.png")
    return result.images[0]
