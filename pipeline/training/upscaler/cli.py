"""Commands of `python -m pipeline train` that train, export and evaluate the pixel upscaler."""

from __future__ import annotations

import argparse

import torch
from diffusers import AutoencoderKL

from ...images.upscaler import Upscaler
from ...loading.device import choose_device
from ...model_files.library import EMBEDDED
from ..stage import loop_options, run_trainer
from . import evaluate
from .crops import CropSource, SceneRenderer, load_sprites_8bit, split_emojis
from .train import make_trainer


def train_upscaler(args: argparse.Namespace) -> None:
    """Train the upscaler, which doubles pictures: a stage of `python -m pipeline train`.

    Checkpoints go into `args.folder`/upscaler. Some training inputs pass through an autoencoder,
    that of the model folder `args.base` (None: the emoji model).
    """
    base = args.base or EMBEDDED / "emoji"
    autoencoder = AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float32).eval()
    training_emojis, _ = split_emojis(args.data)
    renderer = SceneRenderer(load_sprites_8bit(args.data, training_emojis))
    torch.manual_seed(args.seed)
    trainer = make_trainer(
        Upscaler(),
        CropSource(renderer, autoencoder),
        args.folder / "upscaler",
        device=str(choose_device(args.device)),
        **loop_options(args),
    )
    run_trainer(args, trainer, args.minutes)


def export_upscaler(args: argparse.Namespace) -> None:
    """Write the trained upscaler (EMA weights) to the folder `args.model`, then measure it.

    `args.folder` is the folder of the training run.
    """
    evaluate.export(args.model, args.folder)
    evaluate_upscaler(args)


def evaluate_upscaler(args: argparse.Namespace) -> None:
    """Measure the trained upscaler in the folder `args.model`, print the results, update its card.

    `args.count`: number of pictures that PSNR is measured on; `args.sheet`: PNG file for example
    pictures, or None; `args.base`: model folder whose VAE blurs some inputs (None: the emoji
    model).
    """
    base = args.base or EMBEDDED / "emoji"
    print(evaluate.measure(args.model, args.data, base, count=args.count, sheet=args.sheet))
