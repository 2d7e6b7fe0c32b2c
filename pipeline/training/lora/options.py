"""The options of LoRA training, their defaults for each kind of model, and their limits."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ...errors import InputError, short
from ...latents import vae
from ...model_files import library
from ..loop import newest_checkpoint
from .files import NAMINGS
from .layers import LAYERS

if TYPE_CHECKING:
    from ...model import Models

RUNS = Path("runs/lora")
NAME = re.compile(r"[^\W_](?:[\w .-]{0,62}[\w-])?")
MAX_NAME_BYTES = 200  # in UTF-8: a file name has 255, and endings follow
# Windows opens a device for a file of such a name, whatever ending it has:
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
DEVICE = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)
PREDICTIONS = ("epsilon", "v_prediction")
LIMITS: dict[str, tuple[float, float]] = {
    "steps": (1, 100_000),
    "minutes": (0.001, 10_000),
    "rank": (1, 256),
    "alpha": (1e-3, 1e4),
    "rate": (1e-7, 1.0),
    "batch": (1, 256),
    "size": (32, 2048),
    "prior_count": (1, 1000),
    "previews": (0, 100),
    "seed": (0, 2**32 - 1),
    "checkpoint_steps": (1, 100_000),
}


@dataclass(frozen=True)
class Defaults:
    """Default options of LoRA training for one kind of model, small or large.

    rate: learning rate; batch: pictures per step; layers: which layers are trained, "attention",
    "blocks" (all of the transformer blocks) or "all"; shift: above 1, random timesteps are moved
    towards high noise; empty: share (0 to 1) of captions left empty. docs/training.md tells how the
    values were chosen.
    """

    steps: int
    rank: int
    rate: float
    batch: int
    layers: str
    shift: float
    empty: float


SMALL = Defaults(steps=200, rank=8, rate=2e-3, batch=4, layers="all", shift=3.0, empty=0.1)
LARGE = Defaults(steps=800, rank=8, rate=1e-4, batch=1, layers="attention", shift=1.0, empty=0.0)


def defaults(models: Models) -> Defaults:
    """Return the default options for training a LoRA on `models`: SMALL for small ones, else LARGE.

    Small ones are this project's own emoji model and others whose folder has a vocabulary file.
    """
    return SMALL if models.vocabulary is not None else LARGE


@dataclass(frozen=True)
class LoraOptions:
    """What to train a LoRA on and how. None means the default for the model, small or large.

    images: paths or PIL pictures of the character
    name: what the LoRA is called, as in <lora:name:1>
    prompt: the caption of the pictures, with a made-up word for the character
    steps: number of steps in all, including those before a resume
    minutes: stop earlier, after so many minutes; None never does
    rank: of the LoRA's matrices
    alpha: the LoRA's output is multiplied by alpha / rank; None means the rank
    rate: learning rate
    batch: pictures per step
    layers: which layers are trained: "attention", "blocks" (all of the transformer blocks) or "all"
    size: width and height of the training pictures in pixels
    prior_prompt: the class of the character ("a dog") for prior preservation; "" for none
    prior_count: number of pictures of the class that the model draws and is trained on too
    flip: train on mirrored pictures too
    previews: number of pictures drawn during training, from preview_prompt or else prompt
    naming: of the file's tensors, "peft" (for diffusers) or "kohya" (for AUTOMATIC1111 and ComfyUI)
    resume: go on from the newest checkpoint
    checkpoint_steps: number of steps between checkpoints
    keep_run: keep the checkpoints and the class pictures when the training is done, so that it can
        go on with more steps; otherwise they are deleted then
    run: folder of checkpoints, previews and log; None means runs/lora/NAME
    out: folder of the LoRA file; None means models/lora
    """

    images: Sequence[str | Path | Image.Image]
    name: str
    prompt: str
    steps: int | None = None
    minutes: float | None = None
    rank: int | None = None
    alpha: float | None = None
    rate: float | None = None
    batch: int | None = None
    layers: str | None = None
    size: int | None = None
    prior_prompt: str = ""
    prior_count: int = 16
    flip: bool = False
    seed: int = 0
    previews: int = 0
    preview_prompt: str = ""
    naming: str = "peft"
    resume: bool = False
    checkpoint_steps: int = 100
    keep_run: bool = True
    run: Path | None = None
    out: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder for this LoRA training's checkpoints, previews and log."""
        return self.run or RUNS / self.name

    @property
    def path(self) -> Path:
        """The path of the LoRA file that the training writes."""
        return (self.out or library.OWN / "lora") / f"{self.name}.safetensors"


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(LoraOptions):
    """The options of a LoRA training with every default filled in, by `resolve_options`."""

    steps: int
    rank: int
    alpha: float
    rate: float
    batch: int
    layers: str
    size: int


def resolve_options(models: Models, options: LoraOptions) -> ResolvedOptions:
    """Fill in the defaults of a LoRA training for the model `models` and check all values.

    Raises InputError if a value is out of range, such as a rank above 256, or if the model cannot
    be trained, such as one for inpainting.
    """
    _check_model(models)
    base = defaults(models)
    filled = {
        f.name: getattr(base, f.name)
        for f in fields(Defaults)
        if hasattr(options, f.name) and getattr(options, f.name) is None
    }
    if options.size is None:
        filled["size"] = min(models.defaults["width"], models.defaults["height"])
    values = {f.name: getattr(options, f.name) for f in fields(LoraOptions)} | filled
    if values["alpha"] is None:
        values["alpha"] = float(values["rank"])
    resolved = ResolvedOptions(**values)
    for name, (least, most) in LIMITS.items():
        value = getattr(resolved, name)
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            raise InputError(f"{name} must be {least:g} to {most:g}, not {short(value)}.")
    for name, table in (("layers", LAYERS), ("naming", NAMINGS)):
        if getattr(resolved, name) not in table:
            known = ", ".join(table)
            raise InputError(
                f"{name} must be one of {known}, not {short(getattr(resolved, name))}."
            )
    grain = vae.factor(models.vae) * 2 ** (len(models.unet.config.block_out_channels) - 1)
    if resolved.size % grain:
        raise InputError(f"size must be a multiple of {grain} for this model, not {resolved.size}.")
    if not resolved.prompt.strip():
        raise InputError(
            "The prompt is empty: say what the character shall be called, such as"
            " 'zog the striped creature'."
        )
    check_file_name(resolved.name)
    return resolved


def check_file_name(name: str) -> None:
    """Raise InputError if a LoRA's files could not be called `name` on every system.

    Refused are signs that are special in paths or prompts, more bytes than a file name may have,
    and the names of Windows' devices, such as CON or com1.zog.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"{short(repr(name))} cannot be a LoRA's name: it has up to 64 letters,"
            " digits, spaces, dots, - and _, and begins with a letter or a digit."
        )
    if DEVICE.fullmatch(name):
        raise InputError(
            f"{name} cannot be a LoRA's name, because Windows has a device of that name; choose"
            " another name, such as zog."
        )
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise InputError(
            f"{short(repr(name))} cannot be a LoRA's name: it takes {size} bytes, and a file's name"
            f" at most {MAX_NAME_BYTES}."
        )


def _check_model(models: Models) -> None:
    unet = models.unet
    if hasattr(unet, "_hf_hook"):
        raise InputError(
            f"{models.name} was loaded for little memory, its weights visit the GPU one by one;"
            " load it in the ordinary way to train."
        )
    if unet.config.in_channels != models.vae.config.latent_channels:
        raise InputError(
            f"{models.name} is a model for inpainting, which cannot be trained here; train on the"
            " plain model that it was made from."
        )
    prediction = models.scheduler_config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise InputError(
            f"{models.name} predicts {short(prediction)}, which cannot be trained here."
        )


def check_name(options: LoraOptions) -> None:
    """Raise InputError if training a LoRA under this name would overwrite another run or file.

    With `options.resume`, a run that has a checkpoint is allowed, because it is continued.
    """
    checkpoint = newest_checkpoint(options.folder)
    if options.resume and checkpoint:
        return
    if checkpoint:
        raise InputError(
            f"The name {options.name} is taken: {options.folder} holds a run; resume it, or choose"
            " another name."
        )
    low = options.name.casefold()  # some systems, and prompts, take Zog and zog for the same
    entries = library.find_entries("lora", options.out).items()
    taken = next((entry for name, entry in entries if name.casefold() == low), None)
    if taken or options.path.exists():
        raise InputError(
            f"The name {options.name} is taken: {taken.path if taken else options.path} is there;"
            " choose another name."
        )
