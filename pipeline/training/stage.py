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
    """Return the flags of `python -m pipeline train` that are options of the training loop.

    The dict holds keyword arguments of the `make_trainer` functions: "seed" and "checkpoint_steps"
    always, "batch" and "rate" only if given.
    """
    given = {k: getattr(args, k) for k in ("batch", "rate") if getattr(args, k) is not None}
    return given | {"seed": args.seed, "checkpoint_steps": args.checkpoint_steps}


def run_trainer(args: argparse.Namespace, trainer: Trainer, minutes: float | None) -> bool:
    """Run a training loop as the command line `args` says: how long, and afresh or resumed.

    trainer: the loop; minutes: how long to train, None for no limit; it also ends at step
    `args.steps`. With `args.resume` it goes on from the newest checkpoint. Raises InputError if the
    folder holds a run and --resume is missing, if that run has other settings, if an attention or
    GroupNorm kernel fails, and if a file cannot be written. Returns False if a signal has ended the
    training before.
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
    return not trainer.stopped


def resume(trainer: Trainer) -> bool:
    """Load the newest checkpoint of a training run into `trainer`; return False if there is none.

    Raises InputError, a message for the user, if the checkpoint was trained with other settings.
    """
    try:
        return trainer.resume()
    except ValueError as error:
        raise InputError(str(error)) from None
