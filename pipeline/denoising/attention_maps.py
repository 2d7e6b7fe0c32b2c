"""Word maps: how much each place of the picture attends to each word of the prompt.

They are the weights of the UNet's cross attention. After Tang et al., "What the DAAM", arXiv
2210.04885.
"""

from __future__ import annotations

import torch

# For each word of a prompt, the indices of its tokens among the K keys.
Spans = list[list[int]]


class WordMaps:
    """Collects the attention maps of one call of the UNet: those of the conditional half.

    Layers have different resolutions: `by_resolution` averages those of each. `average` resamples
    all to one, that of the finest layer with at most 16 rows or columns (16x16 for Stable Diffusion
    at 512x512).
    """

    last = True  # only the batch's last maps are needed, see backends.AttentionProcessor

    def __init__(self, height: int, width: int):
        """height, width: of the UNet's input in latents."""
        self.ratio = height / width
        self.layers: list[torch.Tensor] = []
        self._read: tuple[Spans, list[torch.Tensor]] | None = None  # of the spans asked for last

    def __call__(self, maps: torch.Tensor) -> None:
        """Add maps (B, Tq, Tk) of one layer; the last of the batch is the conditional half."""
        self.layers.append(maps[-1])

    def _layers(self, spans: Spans) -> list[torch.Tensor]:
        """Return each layer's maps (words, h, w), fp32, in the order in which the layers ran: the
        sum over the keys of a word's tokens."""
        if self._read is not None and self._read[0] is spans:
            return self._read[1]
        out: list[torch.Tensor] = []
        masks: dict[int, torch.Tensor] = {}
        for layer in self.layers:
            queries, keys = layer.shape
            rows = round((queries * self.ratio) ** 0.5)
            if keys not in masks:
                masks[keys] = _key_mask(spans, keys).to(layer.device)
            out.append((masks[keys] @ layer.float().T).reshape(-1, rows, queries // rows))
        self._read = spans, out
        return out

    def by_resolution(self, spans: Spans) -> tuple[torch.Tensor, ...]:
        """Return a map per word at each resolution, (words, h, w) fp32 on the CPU, the coarsest
        first; () without cross attention."""
        found: dict[tuple[int, ...], list[torch.Tensor]] = {}
        for layer in self._layers(spans):
            found.setdefault(tuple(layer.shape[1:]), []).append(layer)
        return tuple(torch.stack(found[size]).mean(0).cpu() for size in sorted(found))

    def average(self, spans: Spans) -> torch.Tensor | None:
        """Return a map per word over all layers, (words, h, w) fp32 on the CPU; None without cross
        attention."""
        layers = self._layers(spans)
        return average_maps(layers).cpu() if layers else None


def _key_mask(spans: Spans, keys: int) -> torch.Tensor:
    """Return which keys belong to each word, (words, keys) of 0 and 1."""
    rows = [[0.0] * keys for _ in spans]
    for row, span in zip(rows, spans, strict=True):
        for key in span:
            row[key] = 1.0
    return torch.tensor(rows).reshape(len(spans), keys)


def average_maps(layers: list[torch.Tensor]) -> torch.Tensor:
    """Average the maps (words, h, w) of several layers at one resolution, see WordMaps."""
    sizes = [layer.shape[1:] for layer in layers]
    size = max([s for s in sizes if min(s) <= 16] or sizes, key=lambda s: s[0] * s[1])
    total = layers[0].new_zeros((len(layers[0]), *size))
    if not len(layers[0]):
        return total
    for layer in layers:
        mode = "area" if layer.shape[1] > size[0] else "bilinear"
        total = total + torch.nn.functional.interpolate(layer[None], size, mode=mode)[0]
    return total / len(layers)
