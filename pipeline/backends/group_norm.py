"""Make diffusers' networks use a GroupNorm backend, or their own GroupNorm again.

Only the classes of modules are swapped, for classes whose forward calls the backend; weights, names
and hooks stay. In a ResBlock, adding the timestep embedding, GroupNorm and SiLU become one call.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from .failures import wrap_kernel_errors
from .table import GROUP_NORM


def _run(
    module: nn.GroupNorm,
    x: torch.Tensor,
    *,
    silu: bool = False,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    name = str(module.backend)  # set by swap_group_norm
    with wrap_kernel_errors("GroupNorm", name, x):
        return GROUP_NORM[name].run(
            x, module.num_groups, module.weight, module.bias, module.eps, silu=silu, shift=shift
        )


class FusedGroupNorm(nn.GroupNorm):
    """An nn.GroupNorm that one of this project's GroupNorm backends computes.

    backend: its name, such as "triton", set by `swap_group_norm`.
    """

    backend: str

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _run(self, x)


class FusedResnetBlock(ResnetBlock2D):
    """A diffusers ResnetBlock2D that calls a GroupNorm backend once for GroupNorm + SiLU.

    Its second GroupNorm also adds the timestep embedding in the same call.
    """

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor, *_, **__) -> torch.Tensor:
        x = input_tensor
        hidden = _run(self.norm1, x, silu=True)
        resample = self.upsample or self.downsample
        if resample is not None:
            x, hidden = resample(x), resample(hidden)
        hidden = self.conv1(hidden)
        shift = None
        if self.time_emb_proj is not None and temb is not None:
            shift = self.time_emb_proj(temb if self.skip_time_act else self.nonlinearity(temb))
        hidden = _run(self.norm2, hidden, silu=True, shift=shift)
        hidden = self.conv2(self.dropout(hidden))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return (x + hidden) / self.output_scale_factor


def _can_fuse(block: Any) -> bool:
    return (
        type(block) is ResnetBlock2D
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.time_embedding_norm == "default"
    )


FUSED: dict[type, type] = {ResnetBlock2D: FusedResnetBlock, nn.GroupNorm: FusedGroupNorm}


def swap_group_norm(network: nn.Module, name: str) -> None:
    """Make every GroupNorm of `network` compute on the backend `name`, "triton" or "torch".

    The classes of its GroupNorms and ResNet blocks are replaced in place; weights stay. "torch"
    puts the original classes back.
    """
    own = GROUP_NORM[name].file is None
    swap = {new: old for old, new in FUSED.items()} if own else FUSED
    for module in network.modules():
        new = swap.get(type(module))
        if new is FusedResnetBlock and not _can_fuse(module):
            continue
        if new is not None:
            module.__class__ = new
        if isinstance(module, FusedGroupNorm):
            module.backend = name
