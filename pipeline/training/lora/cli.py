"""`python -m pipeline train lora`: flags to options, events to a bar; SIGINT stops and keeps."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator

from tqdm import tqdm

from ...errors import InputError
from .data import pictures_in

SAME = (  # flags that are options of the same name
    *("steps", "minutes", "rank", "alpha", "rate", "batch", "layers", "size", "prior_prompt"),
    *("prior_count", "flip", "seed", "previews", "preview_prompt", "naming", "resume"),
)


def run(args: argparse.Namespace) -> None:
    for flag, what in (
        ("images", "the folder of the pictures"),
        ("name", "what <lora:name:1> shall be called"),
        ("prompt", "what the character is called in a prompt"),
    ):
        if getattr(args, flag) is None:
            raise InputError(f"Training a LoRA needs --{flag}, {what}.")
    images = pictures_in(args.images)  # before seconds of loading
    from ...loading.load import load
    from .train import LoraOptions, Trained, train

    given = {k: getattr(args, k) for k in SAME if getattr(args, k) is not None}
    if args.checkpoint_steps is not None:
        given["checkpoint_steps"] = args.checkpoint_steps
    options = LoraOptions(
        images=images, name=args.name, prompt=args.prompt, run=args.folder, **given
    )
    models = load(str(args.model or "emoji"), device=args.device)
    events = train(models, options)
    told, event = set(), None
    with stopping() as stop, tqdm(unit="step", dynamic_ncols=True, delay=1) as bar:
        for event in events:
            for note in event.notes:
                if note not in told:
                    told.add(note)
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
    if not isinstance(event, Trained):
        print(f"Stopped at step {event.step}; --resume goes on from there.")
        return
    print(f"{event.path}: step {event.steps}, {event.seconds / 60:.1f} minutes in all.")
    print(f"Under the other programs' names: {event.other}")
    print(f"In a prompt: {options.prompt} <lora:{event.name}:1>")


@contextlib.contextmanager
def stopping() -> Iterator[list]:
    """A list that is filled when SIGINT or SIGTERM arrives, which then end nothing by force."""
    arrived: list = []

    def arrive(signum, frame) -> None:
        arrived.append(signum)

    handlers = {s: signal.signal(s, arrive) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield arrived
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
