"""Word maps: how much each place of the picture attends to each word of the prompt.

They are the weights of the UNet's cross attention, which it computes anyway. After Tang et al.,
"What the DAAM", arXiv 2210.04885.
"""

from __future__ import annotations

import torch


class WordMaps:
    """Collects the maps of one call of the UNet: the conditional picture's, over all its layers.

    Layers look at different resolutions: `grids` has the average of each. For `words` they are
    brought to one, that of the finest layer of at most 16 rows or columns (16x16 for Stable
    Diffusion at 512x512), and averaged. After Tang et al., "What the DAAM", arXiv 2210.04885.
    """

    last = True  # of the batch it needs no more, see backends.AttentionProcessor

    def __init__(self, height: int, width: int):
        self.ratio = height / width
        self.layers: list[torch.Tensor] = []
        self._read: tuple | None = None  # for which places, and what was read

    def __call__(self, maps: torch.Tensor) -> None:
        """maps (B, Tq, Tk) of one layer; the last of the batch is the conditional picture."""
        self.layers.append(maps[-1])

    def _layers(self, places: list[list[int]]) -> list[torch.Tensor]:
        """Each layer's maps (words, h, w), fp32, in the order in which the layers ran: the sum over
        the keys where a word's tokens stand."""
        if self._read is not None and self._read[0] is places:
            return self._read[1]
        out, stands = [], {}
        for layer in self.layers:
            queries, keys = layer.shape
            rows = round((queries * self.ratio) ** 0.5)
            if keys not in stands:
                stands[keys] = _stand(places, keys).to(layer.device)
            out.append((stands[keys] @ layer.float().T).reshape(-1, rows, queries // rows))
        self._read = places, out
        return out

    def grids(self, places: list[list[int]]) -> tuple[torch.Tensor, ...]:
        """One map a word at each resolution, (words, h, w) fp32 on the CPU, the coarsest first;
        () where there is no cross attention."""
        found: dict[tuple[int, int], list[torch.Tensor]] = {}
        for layer in self._layers(places):
            found.setdefault(tuple(layer.shape[1:]), []).append(layer)
        return tuple(torch.stack(found[size]).mean(0).cpu() for size in sorted(found))

    def words(self, places: list[list[int]]) -> torch.Tensor | None:
        """One map a word over all layers, (words, h, w), fp32 on the CPU; None where there is no
        cross attention."""
        layers = self._layers(places)
        return together(layers).cpu() if layers else None


def _stand(places: list[list[int]], keys: int) -> torch.Tensor:
    """Which keys are a word's, (words, keys) of 0 and 1."""
    rows = [[0.0] * keys for _ in places]
    for row, at in zip(rows, places, strict=True):
        for key in at:
            row[key] = 1.0
    return torch.tensor(rows).reshape(len(places), keys)


def together(layers: list[torch.Tensor]) -> torch.Tensor:
    """Maps (words, h, w) of several layers as their average at one resolution, see WordMaps."""
    sizes = [layer.shape[1:] for layer in layers]
    size = max([s for s in sizes if min(s) <= 16] or sizes, key=lambda s: s[0] * s[1])
    if not len(layers[0]):
        return layers[0].new_zeros((0, *size))
    total = 0
    for layer in layers:
        mode = "area" if layer.shape[1] > size[0] else "bilinear"
        total = total + torch.nn.functional.interpolate(layer[None], size, mode=mode)[0]
    return total / len(layers)
