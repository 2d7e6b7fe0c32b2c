"""Trainable low-rank matrices for the layers of a UNet: LoRA, Hu et al., arXiv 2106.09685.

They are installed in the UNet with the same hooks that apply a finished LoRA file
(lora/adapters.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ...lora.adapters import Adapters, Delta, LoadedLora
from ...lora.lycoris import Product
from ...lora.reading import LoraFile, LowRankDelta

ATTENTION = r"\.attn\d\.to_(q|k|v|out\.0)$"
LAYERS = {  # value of --layers -> regular expression searched in the paths of the layers
    "attention": ATTENTION,
    "blocks": rf"{ATTENTION}|\.ff\.net\.\d+(\.proj)?$|attentions\.\d+\.proj_(in|out)$",
    "all": "",
}


def find_layers(unet: nn.Module, layers: str) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return {path: layer}, the linear and convolution layers of `unet` that a LoRA adds to.

    layers: which ones: "attention", "blocks" (all of the transformer blocks) or "all".
    """
    return {
        path: layer
        for path, layer in unet.named_modules()
        if (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1))
        and re.search(LAYERS[layers], path)
    }


def count_parameters(unet: nn.Module, layers: str, rank: int) -> int:
    """Return how many trainable numbers a LoRA has. layers: as in `find_layers`; rank: 1..256."""
    shapes = [layer.weight.shape for layer in find_layers(unet, layers).values()]
    return sum(rank * (rows + math.prod(columns)) for rows, *columns in shapes)


class LowRankPair(nn.Module):
    """The two trainable matrices of a LoRA in one layer, fp32: up(down(x)) adds to its output.

    Linear layer: down (r, in), up (out, r). Convolution: down (r, in, kh, kw), up (out, r, 1, 1).
    `up` is initialized to zero, so that the layer's output is unchanged at first.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, generator: torch.Generator):
        super().__init__()
        rows, *columns = layer.weight.shape
        bound = 1 / math.sqrt(math.prod(columns))
        down = (torch.rand(rank, *columns, generator=generator) * 2 - 1) * bound
        self.down = nn.Parameter(down.to(layer.weight.device))
        self.up = nn.Parameter(down.new_zeros(rows, rank, *[1] * (len(columns) - 1)).to(self.down))


class LoraLayers(nn.Module):
    """All trainable matrices of a LoRA; the constructor creates them and installs them in `unet`.

    layers: which linear and convolution layers get a pair of matrices (down, up): "attention",
    "blocks" (all of the transformer blocks) or "all"; rank: of the matrices; alpha: the LoRA's
    output is multiplied by alpha / rank; seed: for the random initial `down` matrices.
    """

    def __init__(self, unet: nn.Module, layers: str, rank: int, alpha: float, seed: int):
        super().__init__()
        candidates = find_layers(unet, layers)
        self.paths = tuple(candidates)
        generator = torch.Generator().manual_seed(seed)
        self.pairs = nn.ModuleList(
            [LowRankPair(candidates[path], rank, generator) for path in self.paths]
        )
        self.rank, self.alpha = rank, alpha
        installed: dict[nn.Module, Delta] = {
            candidates[path]: delta for path, delta in self.parts().items()
        }
        Adapters({"unet": unet}).install(((LoadedLora("training", {"unet": installed}), 1.0, 1.0),))

    def parts(self) -> dict[str, LowRankDelta]:
        """Return {layer path: what the LoRA adds to that layer}, to install it in the UNet.

        A LowRankDelta holds the trained matrices themselves, not copies, and the factor alpha /
        rank.
        """
        scale = self.alpha / self.rank
        pairs = cast(Iterable[LowRankPair], self.pairs)
        return {
            path: LowRankDelta(pair.down, pair.up, None, scale)
            for path, pair in zip(self.paths, pairs, strict=True)
        }

    def matrices(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return {layer path: (down, up)}, CPU copies of the trained matrices, to save them."""
        return {
            path: (part.down.detach().cpu().clone(), part.up.detach().cpu().clone())
            for path, part in self.parts().items()
        }

    def as_file(self, path: Path) -> LoraFile:
        """Return the LoRA as if it had been saved and read again, to draw with it during training.

        No file is written. path: where it would have been saved; the LoRA is named after it.
        """
        scale = self.alpha / self.rank
        parts: dict[str, LowRankDelta | Product] = {
            f"unet.{name}": LowRankDelta(down, up, None, scale)
            for name, (down, up) in self.matrices().items()
        }
        return LoraFile(path, parts, "", None)
