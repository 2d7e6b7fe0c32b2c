"""All backends in two tables: ATTENTION and GROUP_NORM.

A new backend is one file beside this one and one row here; the command line, the page, the web API,
"auto", the tests and `python -m pipeline.backends.bench` read these tables. The file defines

    unsupported(device, dtype, head_size=None) -> str | None
        Return in one sentence why the backend cannot run there, or None if it can.
    run(q, k, v) -> Tensor
        For attention: q (B, Tq, H, D), k and v (B, Tk, H, D); the result is shaped like q.
    run(x, groups, weight, bias, eps, *, silu, shift) -> Tensor
        For GroupNorm: x (B, C, H, W) + shift (B, C) is normalized; SiLU follows if `silu`.

An attention file may also define `run_with_maps(q, k, v)`, which returns the output and the softmax
weights averaged over heads, (B, Tq, Tk) fp32, MAX_KEYS, the largest Tk that it takes, and
`maps_supported(q) -> bool`; or `choose(q, k)`, which returns the name of the backend that it calls
for these tensors. A file may define `backward_unsupported`, with the arguments and the result of
`unsupported`: why a backend that can draw cannot train.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

import torch


@dataclass(frozen=True)
class Backend:
    """An implementation of attention or of GroupNorm that a user can choose: a row of a table.

    note, note_zh   what it is, in English and Chinese
    file            the module in pipeline/backends that implements it; None: the network's own code
    rank            position in the order of "auto" if no speed was measured; lowest is first
    auto_on         types of devices on which "auto" may use it ("cuda"); None: all
    fallback        "auto" uses it only if no other backend can run
    may_fail        its kernels may fail on an unusual GPU; then the next backend is used
    provider        its name in `python -m kernels.bench`; None: its key in the table
    combines        it calls the fastest other backend for each shape: "auto" tries it first
    """

    note: str
    note_zh: str
    file: str | None
    rank: int = 0
    auto_on: tuple[str, ...] | None = None
    fallback: bool = False
    may_fail: bool = False
    provider: str | None = None
    combines: bool = False

    @cached_property
    def code(self) -> ModuleType:
        """The imported module that implements the backend: has `unsupported` and `run`."""
        return import_module(f"{__package__}.{self.file}")

    def unsupported(
        self, device: torch.device, dtype: torch.dtype, head_size: int | None = None
    ) -> str | None:
        """Return in one sentence why the backend cannot run on `device`, or None if it can.

        head_size: channels per head of the attention to compute; None leaves it unchecked.
        """
        return None if self.file is None else self.code.unsupported(device, dtype, head_size)

    def run(self, *tensors: Any, **named: Any) -> torch.Tensor:
        """Compute the operation with this backend, by `run` of its module, and return the result.

        Attention: (q, k, v), q (B, Tq, H, D), k and v (B, Tk, H, D); the result is shaped like q.
        GroupNorm: (x, groups, weight, bias, eps, *, silu, shift), x (B, C, H, W), shift (B, C) is
        added to x first, SiLU follows if `silu`; the result is shaped like x.
        """
        return self.code.run(*tensors, **named)


@dataclass(frozen=True)
class Kind:
    """An operation that has backends: attention or GroupNorm.

    name    how sentences call it ("GroupNorm")
    flag    the command-line flag that chooses its backend ("--group-norm")
    table   its backends by name: ATTENTION or GROUP_NORM
    """

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
    "cudnn": Backend(
        "cuDNN's fused attention",
        "cuDNN 的融合注意力。",
        "attention_cudnn",
        rank=3,
        auto_on=("cuda",),
        may_fail=True,
        provider="sdpa cudnn",
    ),
    "per_shape": Backend(
        "the fastest of the others for each shape, as measured on this GPU",
        "按这块 GPU 上测得的速度，为每种形状选用最快的实现。",
        "attention_per_shape",
        rank=4,
        auto_on=("cuda",),
        combines=True,
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
