"""`python -m pipeline verify PICTURE`: draw a picture again and compare it step by step.

The picture is a PNG with a receipt, which records how it was drawn (metadata/receipt.py).
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from .device_flags import add_device_flags

if TYPE_CHECKING:
    from ..metadata.receipt import Receipt
    from ..model import Models


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command `verify` (draw a picture again and compare) to `parser`.

    They are the picture, the model, backends and device.
    """
    parser.add_argument("picture", help="a PNG with its receipt")
    parser.add_argument("--picture", dest="given", help="the picture that it began from, if it did")
    parser.add_argument("--mask", help="the mask that it was repainted with")
    parser.add_argument("--model", help="default: the model of its name, see `models`")
    parser.add_argument("--vae", help="with --model: its autoencoder")
    parser.add_argument("--attention", help="see `backends`; default: what ran, where it can")
    parser.add_argument("--group-norm", help="likewise")
    parser.add_argument("--low-memory", action="store_true")
    add_device_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Draw a picture again from its receipt (how it was drawn) and print how it compares.

    Returns the exit code, 0: the same bits at every step and in the pixels; 1: anything else.
    Raises InputError for a picture that cannot be verified.
    """
    from .. import verify as verifying

    case = verifying.open_input(args.picture, picture=args.given, mask=args.mask)
    models = _load_model(case.receipt, args) if case.receipt.intact else None
    backends = {"attention": args.attention, "group_norm": args.group_norm}
    from tqdm import tqdm

    with tqdm(unit="step", total=case.total, dynamic_ncols=True, leave=False) as bar:
        for event in verifying.check(models, case, **backends):
            if isinstance(event, verifying.StepChecked):
                bar.n = event.step
                bar.set_description("so far identical" if event.same else "departed")
            else:
                verdict = event
    print("\n".join(verdict.sentences))
    return 0 if verdict.kind == "identical" else 1


def _load_model(receipt: Receipt, args: argparse.Namespace) -> Models:
    """Load the model with which to draw a picture again: --model, or the one of its receipt.

    It is loaded on the device that the receipt names if there is one. A receipt (the record in a
    PNG of how it was drawn) may come from a stranger, so its model is looked up by name among those
    of this package and ./models, never opened as a path. Raises InputError if it is not there.
    """
    import torch

    from .. import verify
    from ..loading.load import load
    from ..model_files import library

    checkpoints, vaes = library.find_entries("checkpoint"), library.find_entries("vae")
    if args.model is None:
        name, vae = verify.choose_model(receipt, checkpoints, vaes)
        model = checkpoints[name].path
    else:
        model, vae = args.model, args.vae
    near = verify.nearest_device(receipt)
    given = {k: v for k in ("device", "dtype") if (v := getattr(args, k)) != "auto"}
    threads = receipt.ran.get("threads", "")
    if re.fullmatch("[1-9][0-9]{0,2}", threads, re.ASCII):
        torch.set_num_threads(int(threads))
    loaded = load(model, vae=vae, low_memory=args.low_memory, **(near | given))
    if args.model is None:
        loaded.name = name
    return loaded
