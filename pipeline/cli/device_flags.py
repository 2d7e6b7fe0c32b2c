"""The flags that say where a model runs, and the arguments of `load` made from them."""

from __future__ import annotations

import argparse
from typing import Any


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Add --device and --dtype."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--dtype", default="auto", help="auto, fp32, fp16, bf16")


def load_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `load` that the flags of a task name."""
    return {
        "device": args.device,
        "dtype": args.dtype,
        "attention": args.attention or "auto",
        "group_norm": args.group_norm or "auto",
        "low_memory": args.low_memory,
    }
