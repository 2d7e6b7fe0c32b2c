"""`python -m pipeline TASK`, such as `generate`: run a task and write its pictures."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .. import tasks
from . import task_flags
from .device_flags import add_device_flags, load_arguments


def add_flags(parser: argparse.ArgumentParser, key: str) -> None:
    """Add to `parser` the flags of a task: its options, the model, the device and the output.

    key: a key of TASKS, such as "generate".
    """
    task_flags.add(parser, key)
    parser.add_argument(
        "--model", default="emoji", help="see `models`; a folder, .safetensors file or hub id too"
    )
    parser.add_argument("--vae", help="another autoencoder: see `models`, or a path")
    parser.add_argument(
        "--low-memory",
        action="store_true",
        help="weights visit the GPU layer by layer, pictures are decoded in tiles",
    )
    add_device_flags(parser)
    parser.add_argument(
        "-o",
        "--output",
        default="out.png",
        help="file, .png, .jpg or .webp, all with the parameters text; several get -1, -2, ...",
    )


def run(args: argparse.Namespace) -> None:
    """Run a task such as inpainting with a progress bar, and save its pictures.

    Prints their paths and their parameters texts (prompt and settings).
    """
    options = tasks.options(args.command, **task_flags.fields(args, args.command))
    from ..metadata.save import check_writable

    out = Path(args.output)
    check_writable(out)
    began = time.perf_counter()
    from ..events import Step
    from ..loading.load import load
    from ..model_cache import ModelCache

    models = load(args.model, vae=args.vae, **load_arguments(args))
    loaded = time.perf_counter()
    from tqdm import tqdm

    model_cache = ModelCache(models, **load_arguments(args))  # for a grid over several models
    with tqdm(unit="step", dynamic_ncols=True, leave=False) as bar:
        for event in tasks.stream(models, args.command, options, model_cache):
            if isinstance(event, Step):
                bar.total = event.total * event.count
                bar.n = event.image * event.total + event.index
                bar.refresh()
            else:
                result = event
    for path, text in zip(result.save(out), result.parameters, strict=True):
        print(f"{path}\n{text}")
    for warning in result.warnings:
        print(f"Note: {warning}", file=sys.stderr)
    ran = result.metadata
    print(
        f"Loaded in {loaded - began:.1f} s, drawn in {result.seconds:.1f} s on {ran['device']} "
        f"({ran['dtype']}, attention {ran['attention']}, GroupNorm {ran['group_norm']})."
    )
