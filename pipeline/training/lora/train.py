"""Train a LoRA on a few pictures of one character.

The method is DreamBooth (Ruiz et al., arXiv 2208.12242) with optional prior preservation: the UNet
is also trained on pictures of the character's class ("a dog") that the model itself drew, so that
the class keeps its looks. Only low-rank matrices are trained, on a copy of the UNet, so the model
can draw at the same time.

`train` is a generator of events. Closing it stops after the current step and saves a checkpoint;
with the option `resume` the training goes on from there, to the same weights as an uninterrupted
run.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import DDIMScheduler
from PIL import Image

from ... import engine, oom
from ...disk import make_folder, remove
from ...errors import InputError
from ...images.open import open_picture
from ...metadata.save import save_picture
from ...options import GenerateOptions
from ...prompt import resources
from .. import hardware
from ..emoji.unet import denoising_loss
from ..loop import CsvLog, Trainer, checkpoints, newest_checkpoint
from . import files as lora_files
from .data import (
    Example,
    LoraDataset,
    add_backgrounds,
    digest,
    encode_dataset,
    read_examples,
)
from .layers import LoraLayers, count_parameters, find_layers
from .options import LoraOptions, ResolvedOptions, check_name, defaults, resolve_options

if TYPE_CHECKING:
    from ...lora.adapters import Adapters, LoadedLora
    from ...model import Models

LOG_EVERY = 10  # steps between two rows of the log
CLASS_PICTURES = "class"  # folder of a run that holds the pictures of the character's class


@dataclass(frozen=True)
class Progress:
    """Event of a LoRA training: one step is done, or (step 0) a picture of the class is drawn.

    Such pictures ("a dog") serve prior preservation. step: 1..total; loss: of this step, None at
    step 0; mean: moving average of the loss, None at step 0; seconds: training time so far, resumed
    runs included; preview: the class picture, or what the LoRA draws after this step if a preview
    was due; notes: warnings, one sentence each.
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
    """Last event of a LoRA training: the training is done and the LoRA's files are written.

    path: the file that <lora:name:1> loads; other: a file with the same matrices under the tensor
    names of other programs ("kohya", or "peft" if `path` has kohya's); steps, seconds: how long the
    LoRA was trained in all; loss: moving average at the end, None if no step was left to do; notes:
    warnings, such as which pictures were left out, one sentence each.
    """

    name: str
    path: Path
    other: Path
    steps: int
    seconds: float
    loss: float | None
    notes: tuple[str, ...] = ()


class StepTrainer(Trainer):
    """A training loop whose caller does each step with `train_step`, so it can report in between.

    total: the step at which the learning rate reaches zero, along a cosine (Loshchilov and Hutter,
    arXiv 1608.03983). Without that decay so short a training ends with noisy weights.
    """

    def __init__(self, *args: Any, total: int, **more: Any):
        super().__init__(*args, **more)
        self.peaks, self.total = self.rates, total

    def train_step(self) -> float:
        """Do one optimizer step of the LoRA training and return its loss."""
        begin = time.monotonic()
        decay = (1 + math.cos(math.pi * min(self.step / self.total, 1))) / 2
        self.rates = [peak * decay for peak in self.peaks]
        loss = self.run_step()["loss"]
        self.seconds += time.monotonic() - begin
        return loss


def train(models: Models, options: LoraOptions) -> Generator[Progress | Trained, None, None]:
    """Train a LoRA for `models`; yield Progress events, then one Trained event at the end.

    models: the base model, as returned by pipeline.load; it is not changed. Raises InputError for
    options that cannot be used, a taken name, a loss that is not finite, a full disk, and too
    little memory.
    """
    options = resolve_options(models, options)
    own, notes = read_examples(options.images, options.prompt, options.size)
    if models.vocabulary is not None:
        own = add_backgrounds(own, options.prompt)
    check_name(options)
    if options.resume and not newest_checkpoint(options.folder):
        notes.append(f"{options.folder} holds no checkpoint: this starts afresh.")
    classes: list[Example] = []
    for example in _draw_class_pictures(models, options):
        classes.append(example)
        yield Progress(0, options.steps, None, None, 0.0, example.picture, tuple(notes))
    dataset = encode_dataset(models, own, classes, options.size, options.flip)
    try:
        trainer, layers = make_trainer(models, options, dataset, digest(own + classes))
        yield from _run_steps(models, options, trainer, layers, notes, len(own))
        return
    except Exception as error:
        if not oom.is_out_of_memory(error):
            raise
    oom.free_memory()
    raise InputError(
        f"There is not enough memory on {models.device} to train on pictures of"
        f" {options.size}x{options.size}; take a smaller size or batch."
    )


def _draw_class_pictures(models: Models, options: ResolvedOptions) -> Iterator[Example]:
    """Yield `options.prior_count` pictures of the character's class for prior preservation.

    The model `models` draws them itself, from `options.prior_prompt` ("a dog"); if that is empty,
    none. They are kept in the run's folder, under a key that stands for all that they depend on, so
    that a resumed run draws none again and a run with another class finds none.
    """
    if not options.prior_prompt.strip():
        return
    folder = options.folder / CLASS_PICTURES / class_key(models, options)
    make_folder(folder)
    for i in range(options.prior_count):
        seed = (options.seed + i) % 2**32
        path = folder / f"{seed}.png"
        if not path.exists():
            result = models.generate(
                prompt=options.prior_prompt, seed=seed, width=options.size, height=options.size
            )
            save_picture(result.images[0], path)
        yield Example(open_picture(path).image, options.prior_prompt)


def class_key(models: Models, options: ResolvedOptions) -> str:
    """Return 10 hex digits for all that pictures of the character's class depend on but their seed.

    These are the class's prompt with the textual inversions that it names, the pictures' size, the
    weights of all networks of `models`, its noise schedule and its default options.
    """
    request = GenerateOptions(
        prompt=options.prior_prompt, width=options.size, height=options.size, seed=0
    )
    resolved = models.resolve(request)
    facts = {
        "options": resolved.model_dump(mode="json"),
        "used": resources.find_resources(models, resolved).used,
        "model": (models.hash, models.digests, models.vae_name),
        "scheduler": models.scheduler_config,
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:10]


def disk_bytes(models: Models, options: LoraOptions) -> int:
    """Return how many bytes a LoRA training may take on the disk at most, until it is done.

    These are the checkpoints, the two files of the LoRA, the previews and the class pictures.
    Raises InputError for options that cannot be used.
    """
    options = resolve_options(models, options)
    parameters = count_parameters(models.unet, options.layers, options.rank)
    names = 2000 * len(find_layers(models.unet, options.layers))  # of the tensors in a file
    saved = math.ceil(options.steps / options.checkpoint_steps) + options.resume
    # Weights, their averages and two moments in float32.
    checkpoint = parameters * 4 * 4 + names
    lora = (parameters * 2 + names) * 2  # two files in float16
    pictures = options.previews + (options.prior_count if options.prior_prompt.strip() else 0)
    # The third is written before the oldest is deleted.
    return min(saved, 3) * checkpoint + lora + pictures * (options.size**2 * 3 + 10_000) + 100_000


def largest_rank(models: Models, options: LoraOptions, limit: int) -> int:
    """Return the largest rank whose LoRA training takes at most `limit` bytes; 0 if none does."""
    rank = resolve_options(models, options).rank
    while rank and disk_bytes(models, replace(options, rank=rank, alpha=None)) > limit:
        rank -= 1
    return rank


def _delete_run(folder: Path) -> None:
    """Delete the checkpoints and class pictures of a LoRA training in `folder`, which is done."""
    for path in (*checkpoints(folder), folder / CLASS_PICTURES):
        remove(path)


def _copy_unet(models: Models) -> Any:
    """Return a copy of the model's UNet to train a LoRA on, so that the model can draw meanwhile.

    Its weights are frozen, its attention and GroupNorm kernels have a backward pass, and its dtype
    is bfloat16 on GPUs that support it in hardware, else float32.
    """
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
    hardware.restore_group_norm(unet)
    hardware.install_backends(unet, str(models.device), "auto", "auto")
    return unet


def make_trainer(
    models: Models, options: ResolvedOptions, dataset: LoraDataset, pictures: str
) -> tuple[StepTrainer, LoraLayers]:
    """Return (training loop of a LoRA, its trainable layers), ready for the next step.

    If `options.resume`, the newest checkpoint is loaded first. models: the model to train for;
    dataset: the encoded pictures and captions; pictures: their digest, stored in the run. Raises
    InputError if the checkpoint was trained with other settings or other pictures.
    """
    unet = _copy_unet(models)
    layers = LoraLayers(unet, options.layers, options.rank, options.alpha, options.seed)
    optimizer = torch.optim.AdamW(
        layers.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    shift, empty = defaults(models).shift, defaults(models).empty
    prediction = models.scheduler_config.get("prediction_type", "epsilon")
    # With zero terminal SNR the last alpha is 0, which the loss's weight would divide by.
    alphas = DDIMScheduler.from_config(models.scheduler_config).alphas_cumprod.clamp(min=2**-24)
    half = unet.dtype == torch.bfloat16
    autocast = half or (models.device.type == "cpu" and hardware.bf16_is_fast("cpu"))

    def step(generator: torch.Generator, number: int) -> dict[str, torch.Tensor]:
        clean, context, more = dataset.batch(options.batch, generator, models.device, empty)
        loss = denoising_loss(
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

    # Keys are part of the checkpoint format: a run resumes only where these values are the same.
    names = ("prompt", "rank", "alpha", "rate", "batch", "layers", "size", "flip", "seed")
    config = {k: getattr(options, k) for k in names}
    weights = models.hash
    if models.vae_name is not None:  # the latents are those of another autoencoder
        weights += f" {models.digests['vae'][:10]}"
    config |= {"prior": options.prior_prompt, "model": weights, "pictures": pictures}
    trainer = StepTrainer(
        options.folder,
        layers,
        optimizer,
        step,
        config=config,
        total=options.steps,
        batch=options.batch,
        warmup=20,
        ema_decay=0.0,  # no averaging: the EMA weights equal the weights
    )
    if options.resume:
        try:
            trainer.resume()
        except ValueError as error:
            raise InputError(str(error)) from None
    return trainer, layers


def _run_steps(
    models: Models,
    options: ResolvedOptions,
    trainer: StepTrainer,
    layers: LoraLayers,
    notes: list[str],
    pictures: int,
) -> Iterator[Progress | Trained]:
    """Do the remaining steps of a LoRA training and write its files, yielding the events.

    The events are a Progress after each step, then one Trained. notes: warnings to put into them;
    pictures: number of pictures of the character, for the file's metadata.
    """
    due = {round(options.steps * (i + 1) / options.previews) for i in range(options.previews)}
    end = None if options.minutes is None else time.monotonic() + options.minutes * 60
    log = CsvLog(options.folder / "log.csv", trainer.step)
    mean: float | None = None
    saved = trainer.step
    try:
        while trainer.step < options.steps and (end is None or time.monotonic() < end):
            loss = trainer.train_step()
            if not math.isfinite(loss):
                raise InputError(
                    f"Training went astray at step {trainer.step}: the loss is not finite; choose"
                    " a lower rate."
                )
            mean = loss if mean is None else 0.95 * mean + 0.05 * loss
            if trainer.step % LOG_EVERY == 0 or trainer.step == options.steps:
                speed = trainer.batch * trainer.step / max(trainer.seconds, 1e-9)
                log.write(trainer.step, trainer.seconds, speed, {"loss": loss, "mean": mean})
            if trainer.step % options.checkpoint_steps == 0:
                trainer.save()
                saved = trainer.step
            preview = None
            if trainer.step in due:
                preview = _draw_preview(models, options, layers, trainer)
            yield Progress(
                trainer.step, options.steps, loss, mean, trainer.seconds, preview, tuple(notes)
            )
    except GeneratorExit:
        trainer.save()
        raise
    finally:
        log.close()
        with models.lock:
            models.adapters.install(())  # remove the LoRAs that a preview installed
    if saved != trainer.step or not newest_checkpoint(options.folder):
        trainer.save()
    facts = {k: getattr(options, k) for k in ("name", "prompt", "rank", "alpha", "rate", "batch")}
    facts |= {"size": options.size, "seed": options.seed}
    metadata = lora_files.build_metadata(models, **facts, steps=trainer.step, pictures=pictures)
    matrices, config = layers.matrices(), models.unet.config
    naming, other = options.naming, next(n for n in lora_files.NAMINGS if n != options.naming)
    other_path = options.folder / f"{options.name}-{other}.safetensors"
    lora_files.write(other_path, matrices, options.alpha, config, other, metadata)
    lora_files.write(options.path, matrices, options.alpha, config, naming, metadata)
    if not options.keep_run:
        _delete_run(options.folder)
    yield Trained(
        options.name, options.path, other_path, trainer.step, trainer.seconds, mean, tuple(notes)
    )


class WithLora:
    """Stands in for a model's `adapters`, which installs LoRAs, to draw previews during a training.

    It installs the LoRAs of a prompt as `adapters` does, and the LoRA `fitted` as well. fitted: the
    LoRA in training, matched to the model's layers.
    """

    def __init__(self, adapters: Adapters, fitted: LoadedLora):
        self.adapters, self.fitted = adapters, fitted
        self.load = adapters.load

    def install(self, active: Iterable[tuple[LoadedLora, float, float]]) -> None:
        """Install the LoRAs of a preview's prompt in the model, and the LoRA in training.

        active: (LoRA, weight in the UNet, weight in the text encoders) for each LoRA of the prompt;
        the LoRA in training has weight 1.
        """
        self.adapters.install((*active, (self.fitted, 1.0, 1.0)))


def _draw_preview(
    models: Models, options: ResolvedOptions, layers: LoraLayers, trainer: StepTrainer
) -> Image.Image:
    """Draw a preview with the LoRA in training, save it as preview-STEP.png and return it.

    All previews of a run start from the same noise (`options.seed`).
    """
    fitted = models.adapters.fit(layers.as_file(Path(options.name)))
    with_lora = replace(models, adapters=cast("Adapters", WithLora(models.adapters, fitted)))
    request = GenerateOptions(
        prompt=options.preview_prompt or options.prompt,
        seed=options.seed,
        width=options.size,
        height=options.size,
    )
    *_, result = engine.stream(with_lora, request)
    assert isinstance(result, engine.Result)
    save_picture(result.images[0], options.folder / f"preview-{trainer.step:06d}.png")
    return result.images[0]
