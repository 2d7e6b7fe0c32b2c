"""A second loss for the UNet: cross attention to an object's name shall fall on the object.

CLIP's text tower mixes the whole sentence into every token. A UNet trained with the denoising loss
alone may therefore read the meaning of a name from any token of the prompt: its attention maps say
little, and it confuses the two objects of a scene. This loss is the token loss of Wang et al.,
"TokenCompose", arXiv 2312.03626, with the squares of the objects instead of segmentation masks.
"""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate
from transformers import CLIPTokenizer

from ...prompt.text import space_han
from .scenes import Scene, coverage_maps

WEIGHT = 1.0  # relative to the denoising loss
GRID = 16  # cells per side of the coverage maps
MAX_OBJECTS = 2  # per scene


class AttentionLoss:
    """Loss that trains the UNet's cross attention to an emoji's name to fall on that emoji.

    Set an instance as `attention_hook` of the UNet's attention processors, run the UNet once, which
    hands over its attention maps, then call `compute`. tokenizer: the one that encodes the
    captions.
    """

    def __init__(self, tokenizer: CLIPTokenizer):
        self.tokenizer = tokenizer
        self.name_ids: dict[str, list[int]] = {}
        self.maps: list[torch.Tensor] = []

    def __call__(self, maps: torch.Tensor) -> None:
        """Store the cross-attention maps of one UNet layer, from which `compute` makes the loss.

        maps: (B, Tq latent positions, Tk text tokens). The attention processors call this in each
        layer.
        """
        self.maps.append(maps)

    def token_ids(self, name: str) -> list[int]:
        """Return the token ids of an emoji's name ("cat"), without start and end token."""
        if name not in self.name_ids:
            encoded = self.tokenizer(space_han(name), add_special_tokens=False)
            self.name_ids[name] = encoded.input_ids
        return self.name_ids[name]

    def name_mask(self, ids: torch.Tensor, names: list[tuple[str, ...]]) -> torch.Tensor:
        """Return which tokens of the captions spell the names of the emoji: 1 if so, else 0.

        ids: token ids of the captions (B, Tk); names: for each caption the names of the one or two
        emoji it describes. The mask is (B, MAX_OBJECTS, Tk), in the order of `names`, and all 0 for
        an emoji whose name the caption does not contain and for a second emoji that is not there.
        """
        out = torch.zeros(len(names), MAX_OBJECTS, ids.shape[1])
        for row, (sentence, named) in enumerate(zip(ids.tolist(), names, strict=True)):
            for index, name in enumerate(named):
                begin = find_sublist(sentence, self.token_ids(name))
                if begin is not None:
                    out[row, index, begin : begin + len(self.token_ids(name))] = 1
        return out

    def compute(
        self, ids: torch.Tensor, names: list[tuple[str, ...]], scenes: list[Scene]
    ) -> torch.Tensor:
        """Return the loss, a scalar: the mean over layers and names of (1 - s)^2.

        s is the share (0 to 1) of a name's attention map that lies on the square of its emoji. ids:
        token ids of the captions (B, Tk); names: for each caption the names of its emoji, () for an
        empty caption; scenes: for each picture which emoji stand where. Forgets the stored
        attention maps.
        """
        layers, self.maps = self.maps, []
        device = layers[0].device
        keys = self.name_mask(ids, names).to(device)
        cells = torch.zeros(len(scenes), MAX_OBJECTS, GRID, GRID)
        for row, scene in enumerate(scenes):
            cells[row, : len(scene.objects)] = coverage_maps(scene, GRID)
        cells = cells.to(device)
        has_name = keys.any(-1)  # (B, MAX_OBJECTS)
        losses = []
        for maps in layers:
            side = round(maps.shape[1] ** 0.5)
            covered = interpolate(cells, (side, side), mode="area").flatten(2)  # (B, M, Tq)
            attended = keys @ maps.float().transpose(1, 2)  # (B, M, Tq)
            share = (attended * covered).sum(-1) / attended.sum(-1).clamp(min=1e-6)
            losses.append(((1 - share).square() * has_name).sum() / has_name.sum().clamp(min=1))
        return torch.stack(losses).mean()


def find_sublist(values: list[int], wanted: list[int]) -> int | None:
    """Return the index in `values` at which the sublist `wanted` begins; None if there is none."""
    for i in range(len(values) - len(wanted) + 1):
        if values[i : i + len(wanted)] == wanted:
            return i
    return None
