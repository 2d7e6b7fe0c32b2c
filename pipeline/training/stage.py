"""What the stages of `python -m pipeline train` share: loop options, resuming, and messages."""

from __future__ import annotations

import argparse
from typing import Any

from ..backends import KernelFailed
from ..errors import InputError
from .emoji import card
from .loop import Trainer, newest_checkpoint


def loop_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags that are arguments of every `make_trainer`, without those not given."""
    given = {k: getattr(args, k) for k in ("batch", "rate") if getattr(args, k) is not None}
    return given | {"seed": args.seed, "checkpoint_steps": args.checkpoint_steps}


def run_trainer(args: argparse.Namespace, trainer: Trainer, minutes: float | None) -> None:
    """Train for `minutes` or up to `args.steps`, from the newest checkpoint with --resume.

    Raises InputError where the folder holds a run that is not resumed, where the run was begun with
    other settings, and where a kernel fails.
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
    """Resume `trainer`; return False without a checkpoint. InputError for other settings."""
    try:
        return trainer.resume()
    except ValueError as error:
        raise InputError(str(error)) from None
