"""The layers of a UNet that a LoRA trains, and their low-rank matrices.

Hu et al., arXiv 2106.09685. They are installed with the hooks that also draw with a LoRA file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...lora.adapters import Adapters, LoadedLora
from ...lora.products import Product
from ...lora.reading import LoraFile, LowRankDelta

ATTENTION = r"\.attn\d\.to_(q|k|v|out\.0)$"
LAYERS = {  # values of --layers: a pattern of the layers' paths
    "attention": ATTENTION,
    "blocks": rf"{ATTENTION}|\.ff\.net\.\d+(\.proj)?$|attentions\.\d+\.proj_(in|out)$",
    "all": "",
}


class LowRankPair(nn.Module):
    """down (r, in) or (r, in, kh, kw) and up (out, r) or (out, r, 1, 1) of a layer, in fp32.

    up begins at zero, so that the layer's output is unchanged at first.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, generator: torch.Generator):
        super().__init__()
        rows, *columns = layer.weight.shape
        bound = 1 / math.sqrt(math.prod(columns))
        down = (torch.rand(rank, *columns, generator=generator) * 2 - 1) * bound
        self.down = nn.Parameter(down.to(layer.weight.device))
        self.up = nn.Parameter(down.new_zeros(rows, rank, *[1] * (len(columns) - 1)).to(self.down))


class LoraLayers(nn.Module):
    """A LowRankPair for each layer of `unet` that `layers` (a key of LAYERS) selects, installed."""

    def __init__(self, unet: nn.Module, layers: str, rank: int, alpha: float, seed: int):
        super().__init__()
        found: dict[str, nn.Linear | nn.Conv2d] = {
            path: layer
            for path, layer in unet.named_modules()
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
        }
        self.paths = tuple(path for path in found if re.search(LAYERS[layers], path))
        generator = torch.Generator().manual_seed(seed)
        self.pairs = nn.ModuleList(
            [LowRankPair(found[path], rank, generator) for path in self.paths]
        )
        self.rank, self.alpha = rank, alpha
        installed: dict[nn.Module, Any] = {found[p]: part for p, part in self.parts().items()}
        Adapters({"unet": unet}).install(((LoadedLora("training", {"unet": installed}), 1.0, 1.0),))

    def parts(self) -> dict[str, LowRankDelta]:
        """Return the trained matrices by the layer's path, with alpha / rank as their scale."""
        scale = self.alpha / self.rank
        pairs = cast(Iterable[LowRankPair], self.pairs)
        return {
            path: LowRankDelta(pair.down, pair.up, None, scale)
            for path, pair in zip(self.paths, pairs, strict=True)
        }

    def matrices(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return (down, up) by the layer's path, copied to the CPU."""
        return {
            path: (part.down.detach().cpu().clone(), part.up.detach().cpu().clone())
            for path, part in self.parts().items()
        }

    def as_file(self, path: Path) -> LoraFile:
        """Return what a file with these matrices would hold."""
        scale = self.alpha / self.rank
        parts: dict[str, LowRankDelta | Product] = {
            f"unet.{name}": LowRankDelta(down, up, None, scale)
            for name, (down, up) in self.matrices().items()
        }
        return LoraFile(path, parts, "", None)
