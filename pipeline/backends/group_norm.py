"""GroupNorm backends, and how our kernel gets into diffusers' networks and out again.

Modules keep their weights, names and hooks: only their class is swapped, for one whose forward
calls the kernel. In a ResBlock the timestep's shift, the norm and SiLU become one launch.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from .failures import ON_ZERO_GPU, KernelFailed, blacklist, wrap_kernel_errors


class TorchGroupNorm:
    """PyTorch's own GroupNorm."""

    note = "PyTorch's GroupNorm"

    @staticmethod
    def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
        return None


class TritonGroupNorm:
    """This project's own kernel."""

    note = "this project's Triton kernel, with shift and SiLU in the same launch"

    @staticmethod
    def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
        try:
            from kernels import group_norm
        except ImportError:
            return "triton is not installed here."
        return group_norm.unsupported(device, dtype) or _probe(str(device), dtype)


GROUP_NORM = {"triton": TritonGroupNorm, "torch": TorchGroupNorm}


@lru_cache
def _probe(device: str, dtype: torch.dtype) -> str | None:
    """One real tiny call; where it fails, a warning and the reason."""
    if ON_ZERO_GPU:
        return None
    x = torch.zeros((1, 8, 4, 4), device=device, dtype=dtype)
    try:
        with wrap_kernel_errors("GroupNorm", "triton", x):
            _kernel(x, 2, silu=True, shift=x[:, :, 0, 0])
    except KernelFailed as failure:
        blacklist(failure)
        return f"it failed at {failure.reason}"
    return None


def _kernel(*args, **named) -> torch.Tensor:
    from kernels.group_norm import group_norm

    return group_norm(*args, **named)


def _norm(module: nn.GroupNorm, x, *, silu: bool = False, shift=None) -> torch.Tensor:
    with wrap_kernel_errors("GroupNorm", "triton", x):
        return _kernel(
            x, module.num_groups, module.weight, module.bias, module.eps, silu=silu, shift=shift
        )


class FusedGroupNorm(nn.GroupNorm):
    """nn.GroupNorm on the kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _norm(self, x)


class FusedResnetBlock(ResnetBlock2D):
    """diffusers' ResnetBlock2D with norm and SiLU, and shift, norm and SiLU, in one launch each."""

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor, *_, **__) -> torch.Tensor:
        x = input_tensor
        hidden = _norm(self.norm1, x, silu=True)
        resample = self.upsample or self.downsample
        if resample is not None:
            x, hidden = resample(x), resample(hidden)
        hidden = self.conv1(hidden)
        shift = None
        if self.time_emb_proj is not None and temb is not None:
            shift = self.time_emb_proj(temb if self.skip_time_act else self.nonlinearity(temb))
        hidden = _norm(self.norm2, hidden, silu=True, shift=shift)
        hidden = self.conv2(self.dropout(hidden))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return (x + hidden) / self.output_scale_factor


def _can_fuse(block: nn.Module) -> bool:
    return (
        type(block) is ResnetBlock2D
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.time_embedding_norm == "default"
    )


def swap_group_norm(network: nn.Module, name: str) -> None:
    """Run every GroupNorm of `network` on the backend `name`; "torch" is what it had."""
    swap = {ResnetBlock2D: FusedResnetBlock, nn.GroupNorm: FusedGroupNorm}
    if name == "torch":
        swap = {new: old for old, new in swap.items()}
    for module in network.modules():
        new = swap.get(type(module))
        if new is FusedResnetBlock and not _can_fuse(module):
            continue
        if new is not None:
            module.__class__ = new
