"""The parser of the command line: a command for each task, and the other ones of COMMANDS."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from ..errors import InputError
from ..tasks import TASKS
from . import bench, draw, listing, train, verify
from .device_flags import add_device_flags


@dataclass(frozen=True)
class Command:
    """A command of `python -m pipeline` other than the tasks (text to image, inpainting, ...).

    run: called with the parsed arguments; returns an exit code, or None for 0. help: one line for
    `python -m pipeline --help`. add_flags: adds the command's flags to its parser; None: it has no
    flags. description: text for the command's own `--help`.
    """

    run: Callable[[argparse.Namespace], int | None]
    help: str
    add_flags: Callable[[argparse.ArgumentParser], None] | None = None
    description: str | None = None


COMMANDS: dict[str, Command] = {
    "info": Command(
        listing.print_info, "the parameters text of a PNG, JPEG or WebP", listing.add_info_flags
    ),
    "verify": Command(
        verify.run,
        "make a picture again and compare it step by step",
        verify.add_flags,
        "Exit code 0: identical; 1: it departs, was tampered with, or the model is another; "
        "2: it cannot be verified.",
    ),
    "samplers": Command(listing.print_samplers, "the samplers and noise schedules there are"),
    "backends": Command(
        listing.print_backends,
        "who runs attention and GroupNorm here, or why not",
        add_device_flags,
    ),
    "models": Command(listing.print_models, "the models, LoRAs and the like that are here"),
    "bench": Command(bench.run, "whole pictures against diffusers, as ratios", bench.add_flags),
    "train": Command(
        train.run, "train each part from zero, and measure the model", train.add_flags
    ),
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError, in one sentence, where argparse would exit."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError with argparse's message and a hint at --help."""
        raise InputError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def build_parser(command: str | None = None) -> Parser:
    """Return the parser of `python -m pipeline` with all its commands.

    command: the name of the command about to be parsed. If it is a task, its flags are added; those
    of the other tasks are not, because a task's Options take a moment to import.
    """
    root = Parser(prog="python -m pipeline", description="Stable Diffusion, open to look into.")
    commands = root.add_subparsers(dest="command", required=True, parser_class=Parser)
    for key, task in TASKS.items():
        aliases = [key.replace("_", "-")] if "_" in key else []
        sub = commands.add_parser(key, help=task.note, aliases=aliases)
        sub.set_defaults(run=draw.run, command=key)
        if command in (key, *aliases):
            draw.add_flags(sub, key)
    for key, row in COMMANDS.items():
        sub = commands.add_parser(key, help=row.help, description=row.description)
        sub.set_defaults(run=row.run)
        if row.add_flags:
            row.add_flags(sub)
    return root
