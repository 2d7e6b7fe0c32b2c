"""Functions shared by the stages of `python -m pipeline train`: flags, resuming, messages.

A stage trains one network, such as "clip", "vae" or "unet".
"""

from __future__ import annotations

import argparse
from typing import Any

from ..backends import KernelFailed
from ..errors import InputError
from .emoji import card
from .loop import Trainer, newest_checkpoint


def loop_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments for a `make_trainer` function that the command line sets.

    "batch" and "rate" only if given, "seed" and "checkpoint_steps" always.
    """
    given = {k: getattr(args, k) for k in ("batch", "rate") if getattr(args, k) is not None}
    return given | {"seed": args.seed, "checkpoint_steps": args.checkpoint_steps}


def run_trainer(args: argparse.Namespace, trainer: Trainer, minutes: float | None) -> None:
    """Run `trainer` for `minutes` or until step `args.steps`; with --resume from the checkpoint.

    Raises InputError if the folder holds a run and --resume is missing, if that run has other
    settings, and if an attention or GroupNorm kernel fails.
    """
    if args.resume:
        print(
            f"Going on from step {trainer.step}."
            if resume(trainer)
            else f"{trainer.folder} holds no checkpoint: starting afresh."
        )
    elif newest_checkpoint(trainer.folder):
        raise InputError(
            f"{trainer.folder} already holds a run: pass --resume to go on, or another --run."
        )
    card.record_base(args.folder, trainer.folder.name, args.base)
    try:
        trainer.train(minutes=minutes, steps=args.steps)
    except KernelFailed as failure:
        flag = "--attention" if failure.kind == "attention" else "--group-norm"
        raise InputError(f"{failure}; {flag} chooses another.") from None
    print(f"{trainer.folder}: step {trainer.step}, {trainer.seconds / 60:.1f} minutes in all.")


def resume(trainer: Trainer) -> bool:
    """Load the newest checkpoint into `trainer`; return False if there is none.

    Raises InputError if the checkpoint was trained with other settings.
    """
    try:
        return trainer.resume()
    except ValueError as error:
        raise InputError(str(error)) from None
