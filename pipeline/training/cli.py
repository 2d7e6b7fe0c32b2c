"""`python -m pipeline train STAGE`: check the flags, download the training data, run the stage.

A stage is one command, such as "clip", "unet" or "evaluate". The stages of the embedded emoji model
are in emoji/cli.py, those of the pixel upscaler in upscaler/cli.py, LoRA training in lora/cli.py.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from ..errors import InputError
from .emoji import cli as emoji
from .emoji.packages import fetch
from .lora import cli as lora
from .upscaler import cli as upscaler

STAGES: dict[str, Callable[[argparse.Namespace], object]] = {
    "clip": emoji.train_clip,
    "vae": emoji.train_vae,
    "decoder": emoji.train_decoder,
    "unet": emoji.train_unet,
    "all": emoji.train_all,
    "compare": emoji.compare_choices,
    "export": emoji.export_model,
    "evaluate": emoji.evaluate_model,
    "lora": lora.run,
    "upscaler": upscaler.train_upscaler,
    "export-upscaler": upscaler.export_upscaler,
    "evaluate-upscaler": upscaler.evaluate_upscaler,
    "evaluate-colorize": emoji.evaluate_colorize,
}

# Stages that need --minutes or --steps.
NEED_LENGTH = ("clip", "vae", "decoder", "unet", "all", "upscaler")


def run(args: argparse.Namespace) -> None:
    """Run one stage of `python -m pipeline train STAGE`, such as "clip", "evaluate" or "lora".

    args: the parsed command line; `args.stage` is the stage's name, a key of STAGES. Except for
    "lora", missing folders in `args` (data, folder, model) are set to their defaults and missing
    training data is downloaded. Raises InputError with a one-sentence message for bad flags,
    missing files and failed downloads.
    """
    check_flags(args)
    try:
        if args.stage != "lora":  # a LoRA is trained on the user's own pictures, on any model
            args.data = args.data or Path("runs/data")
            name = "upscaler" if args.stage.endswith("upscaler") else "emoji"
            args.folder = args.folder or Path("runs") / name
            args.model = args.model or Path("pipeline/models") / name
            fetch(args.data)
        STAGES[args.stage](args)
    except (RuntimeError, FileNotFoundError) as error:
        if isinstance(error, torch.OutOfMemoryError) or type(error) not in (
            RuntimeError,
            FileNotFoundError,
        ):
            raise
        raise InputError(str(error)) from None


def check_flags(args: argparse.Namespace) -> None:
    """Check the flags `args` of `python -m pipeline train`; raise InputError for a wrong one.

    Wrong are numbers out of range, such as --steps 0, and neither --minutes nor --steps at a stage
    that needs to know how long to train, such as "unet".
    """
    for name in ("minutes", "rate"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} must be a positive number, not {value}.")
    for name in ("steps", "batch", "count", "pool", "checkpoint_steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
    if args.stage in NEED_LENGTH and args.minutes is None and args.steps is None:
        raise InputError("Say how long to train: --minutes N or --steps N.")
