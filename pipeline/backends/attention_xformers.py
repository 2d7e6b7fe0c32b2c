"""The attention backend "xformers": its memory-efficient attention."""

from __future__ import annotations

import contextlib
import io
import logging
from functools import lru_cache

import torch

from . import failures

MAX_HEAD_SIZE = 256


def unsupported(
    device: torch.device, dtype: torch.dtype, head_size: int | None = None
) -> str | None:
    """Return in one sentence why xformers cannot run on `device`, or None if it can.

    head_size: channels per head; None leaves it unchecked. The first time for a device and dtype
    one small call is tried.
    """
    if head_size is not None and head_size > MAX_HEAD_SIZE:
        return f"xformers has no operator for a head of {head_size}."
    return _probe(str(device), dtype)


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return xformers' attention of q (B, Tq, H, D) to k and v (B, Tk, H, D), shaped like q."""
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention(q, k, v)


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """Call xformers once on small tensors; return None if it works, else why not in words.

    Cached. On ZeroGPU only the import is tried, as there is no GPU yet.
    """
    logger = logging.getLogger("xformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            from xformers.ops import memory_efficient_attention
        if failures.ON_ZERO_GPU:
            return None
        q = torch.zeros((1, 8, 1, 40), device=device, dtype=dtype)
        memory_efficient_attention(q, q, q)
    except ImportError:
        return "xformers is not installed here."
    except NotImplementedError:
        kind = str(dtype).removeprefix("torch.")
        return f"xformers has no attention operator for {device} tensors of type {kind}."
    except Exception as error:  # a broken build raises errors of many types
        return f"xformers failed on {device}: {failures.first_line(error)}"
    finally:
        logger.setLevel(level)
    return None
