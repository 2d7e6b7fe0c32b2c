"""ATTENTION and GROUP_NORM: every backend, once.

A new backend is one file beside this one and one row here; the command line, the page, the web API,
`auto`, the tests and `python -m pipeline.backends.bench` read these tables. The file has

    unsupported(device, dtype, head_size=None) -> str | None    why it cannot run here, a sentence
    run(q, k, v) -> Tensor                        attention: (B, Tq, H, D), (B, Tk, H, D) twice
    run(x, groups, weight, bias, eps, *, silu, shift) -> Tensor    GroupNorm of x (B, C, H, W)

An attention file may also have `run_with_maps(q, k, v)`, which returns the output and the weights
averaged over heads (B, Tq, Tk) fp32, and takes up to MAX_KEYS keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import torch


@dataclass(frozen=True)
class Backend:
    """A row of ATTENTION or GROUP_NORM.

    note, note_zh  what it is, in English and Chinese
    file           its file beside this one; None: what the network does by itself
    rank           its place in the order of `auto` where nothing was measured, the lowest first
    auto_on        types of devices on which `auto` may take it; None: all
    fallback       `auto` takes it only where no other one runs
    may_fail       its kernels may fail on an unusual GPU: then the next backend goes on
    provider       what kernels.bench calls it; None: as its key
    """

    note: str
    note_zh: str
    file: str | None
    rank: int = 0
    auto_on: tuple[str, ...] | None = None
    fallback: bool = False
    may_fail: bool = False
    provider: str | None = None

    @cached_property
    def code(self) -> Any:
        """The module of its file."""
        return import_module(f"{__package__}.{self.file}")

    def unsupported(
        self, device: torch.device, dtype: torch.dtype, head_size: int | None = None
    ) -> str | None:
        """Return why it cannot run there, in a sentence; None where it can.

        head_size: of the attention that it is to compute.
        """
        return None if self.file is None else self.code.unsupported(device, dtype, head_size)

    def run(self, *tensors: Any, **named: Any) -> torch.Tensor:
        """Compute on it, see the module's docstring."""
        return self.code.run(*tensors, **named)


@dataclass(frozen=True)
class Kind:
    """What backends compute: its name in sentences, its flag and its table."""

    name: str
    flag: str
    table: dict[str, Backend]


ATTENTION = {
    "triton": Backend(
        "this project's Triton kernels",
        "本项目自己的 Triton 内核。",
        "attention_triton",
        rank=2,
        auto_on=("cuda",),
        may_fail=True,
        provider="ours",
    ),
    "sdpa": Backend("PyTorch's fused attention", "PyTorch 的融合注意力。", "attention_sdpa"),
    "xformers": Backend(
        "xformers' memory-efficient attention",
        "xformers 的省显存注意力。",
        "attention_xformers",
        rank=1,
        auto_on=("cuda",),
        may_fail=True,
    ),
    "math": Backend(
        "plain matrix products, the reference",
        "直接的矩阵乘法，作为参照。",
        "attention_math",
        fallback=True,  # it holds the whole matrix of weights in memory
        provider="torch eager",
    ),
}
GROUP_NORM = {
    "triton": Backend(
        "this project's Triton kernel, with shift and SiLU in the same launch",
        "本项目自己的 Triton 内核，平移、归一化和 SiLU 一次完成。",
        "group_norm_triton",
        rank=1,
        auto_on=("cuda",),
        may_fail=True,
        provider="ours",
    ),
    "torch": Backend(
        "PyTorch's GroupNorm", "PyTorch 自带的 GroupNorm。", None, provider="torch eager"
    ),
}
KINDS = {
    "attention": Kind("attention", "--attention", ATTENTION),
    "group_norm": Kind("GroupNorm", "--group-norm", GROUP_NORM),
}
