"""Commands that print information and draw nothing: `info`, `samplers`, `backends`, `models`."""

from __future__ import annotations

import argparse
import io
import sys

HEADINGS = {  # what `models` prints above each kind of file but checkpoints
    "lora": "LoRAs, in a prompt <lora:name:1>",
    "embedding": "Textual inversions, by name in a prompt",
    "vae": "Autoencoders (--vae)",
}


def add_info_flags(parser: argparse.ArgumentParser) -> None:
    """Add the argument of the command `info` to `parser`: a picture file."""
    parser.add_argument("picture")


def print_info(args: argparse.Namespace) -> None:
    """Print the parameters text (prompt and settings) that a picture file carries."""
    from ..metadata.infotext import read

    text = read(args.picture)
    if isinstance(sys.stdout, io.TextIOWrapper):  # for a terminal that lacks some characters
        sys.stdout.reconfigure(errors="backslashreplace")
    print(text)


def print_samplers(args: argparse.Namespace) -> None:
    """Print all samplers and schedules, and the reason for each that cannot run here."""
    from ..samplers import SAMPLERS, SCHEDULES, unsupported

    print("Samplers (--sampler), their model calls a step, and the schedules they take:")
    for key, sampler in SAMPLERS.items():
        takes = "all" if len(sampler.schedules) == len(SCHEDULES) else ", ".join(sampler.schedules)
        print(f"  {key:18} {sampler.label:18} {sampler.calls}  {sampler.note} ({takes})")
        reason = unsupported(key)
        if reason:
            print(f"  {'':18} {'':18}    not here: {reason}")
    print("Schedules (--schedule):")
    for key, schedule in SCHEDULES.items():
        print(f"  {key:18} {schedule.label:18}    {schedule.note}")


def print_backends(args: argparse.Namespace) -> None:
    """Print the backends (implementations) of attention and GroupNorm that can be chosen.

    For one that cannot run on --device in --dtype it prints the reason.
    """
    from ..loading.silence import silence_libraries

    with silence_libraries():
        import torch

    from ..backends import KINDS, choose, trust, unsupported_reason
    from ..loading.device import choose_device, choose_dtype

    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    print(f"On {device} in {str(dtype).removeprefix('torch.')} (torch {torch.__version__}):")
    if state := trust.state(device, dtype):
        print(f"This project's kernels: {trust.STATES[state]}.")
    for key, kind in KINDS.items():
        title = kind.name[:1].upper() + kind.name[1:]
        print(f"{title} ({kind.flag}), auto takes {choose(key, 'auto', device, dtype)}:")
        for name, backend in kind.table.items():
            reason = unsupported_reason(key, name, device, dtype)
            print(f"  {name:10} {'not here: ' + reason if reason else backend.note}")


def print_models(args: argparse.Namespace) -> None:
    """Print the checkpoints, LoRAs, textual inversions and autoencoders of this machine.

    Those are what this package ships and what is in ./models. For a file that cannot be used it
    prints the reason.
    """
    from ..errors import short
    from ..model_files.identify import KINDS
    from ..model_files.library import OWN, scan

    print(
        "Models (--model), beside any folder in diffusers' format, any .safetensors file and any"
        f" hub id owner/name; your own belong into the folder {OWN}, sorted as you like:"
    )
    entries = scan()
    for kind in KINDS:
        rows = [e for e in entries if e.kind == kind]
        if kind != "checkpoint" and rows:
            print(f"{HEADINGS[kind]}:")
        for e in rows:
            unusable = f"; not usable: {e.reason}" if e.reason else ""
            print(f"  {short(e.name):14} {short(e.path)}  {e.note}{unusable}")
