"""`python -m pipeline train lora`: train a LoRA from command-line flags, with a progress bar.

SIGINT and SIGTERM stop the training after the current step and save a checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator

from tqdm import tqdm

from ...errors import InputError
from .data import pictures_in

OPTION_FLAGS = (  # flags that set the field of the same name in LoraOptions
    *("steps", "minutes", "rank", "alpha", "rate", "batch", "layers", "size", "prior_prompt"),
    *("prior_count", "flip", "seed", "previews", "preview_prompt", "naming", "resume"),
)


def run(args: argparse.Namespace) -> None:
    """Run `python -m pipeline train lora`: train a LoRA and print the paths of its files.

    args: the parsed command line. Raises InputError if --images, --name or --prompt is missing, and
    for values that cannot be used.
    """
    for flag, what in (
        ("images", "the folder of the pictures"),
        ("name", "what <lora:name:1> shall be called"),
        ("prompt", "what the character is called in a prompt"),
    ):
        if getattr(args, flag) is None:
            raise InputError(f"Training a LoRA needs --{flag}, {what}.")
    images = pictures_in(args.images)  # fail before the model is loaded, which takes seconds
    from ...loading.load import load
    from .train import LoraOptions, Progress, Trained, train

    given = {k: getattr(args, k) for k in OPTION_FLAGS if getattr(args, k) is not None}
    if args.checkpoint_steps is not None:
        given["checkpoint_steps"] = args.checkpoint_steps
    options = LoraOptions(
        images=images, name=args.name, prompt=args.prompt, run=args.folder, **given
    )
    models = load(str(args.model or "emoji"), device=args.device)
    events = train(models, options)
    printed: set[str] = set()
    event: Progress | Trained | None = None
    with catch_signals() as stop, tqdm(unit="step", dynamic_ncols=True) as bar:
        for event in events:
            for note in event.notes:
                if note not in printed:
                    printed.add(note)
                    bar.write(f"Note: {note}", file=sys.stderr)
            if isinstance(event, Trained):
                break
            bar.total, bar.n = event.total, event.step
            bar.set_postfix_str(
                "drawing pictures of the class"
                if event.loss is None
                else f"loss {event.mean:.4f}, {event.seconds:.0f} s"
            )
            if stop:
                events.close()
                break
    assert event is not None  # there is at least one step
    if not isinstance(event, Trained):
        print(f"Stopped at step {event.step}; --resume goes on from there.")
        return
    print(f"{event.path}: step {event.steps}, {event.seconds / 60:.1f} minutes in all.")
    print(f"Under the other programs' names: {event.other}")
    print(f"In a prompt: {options.prompt} <lora:{event.name}:1>")


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """In a `with` block, collect the signals SIGINT and SIGTERM instead of ending the process.

    The training can then finish its current step and stop. Yields a list, empty at first, to
    which the number of each such signal is appended; the caller looks there after each step. After
    the block the old handlers are restored.
    """
    arrived: list[int] = []

    def arrive(signum: int, frame: object) -> None:
        arrived.append(signum)

    handlers = {s: signal.signal(s, arrive) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield arrived
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
