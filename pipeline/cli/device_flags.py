"""The flags that say on what a model runs, and the arguments of `pipeline.load` from them."""

from __future__ import annotations

import argparse
from typing import Any


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Add --device and --dtype, both "auto" by default, to `parser`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--dtype", default="auto", help="auto, fp32, fp16, bf16")


def load_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `pipeline.load` from the parsed flags of a task."""
    return {
        "device": args.device,
        "dtype": args.dtype,
        "attention": args.attention or "auto",
        "group_norm": args.group_norm or "auto",
        "low_memory": args.low_memory,
    }
