"""Word maps: how much each position of the picture attends to each word of the prompt.

They are computed from the weights of the UNet's cross attention, after Tang et al., "What the
DAAM", arXiv 2210.04885.
"""

from __future__ import annotations

import torch

# For each word of a prompt, the positions of its tokens among the K keys of cross attention.
Spans = list[list[int]]


class WordMaps:
    """Collects a UNet call's cross attention maps: where the picture attends to each prompt word.

    Pass it to Denoiser as `attention_hook`. Only the maps of the conditional sample are collected.
    Layers have different resolutions: `by_resolution` averages the layers of each resolution.
    `average` resamples all layers to one resolution, that of the finest layer whose smaller side is
    at most 16 (16x16 for Stable Diffusion at 512x512).
    """

    last = True  # only the maps of the batch's last sample, see backends.AttentionProcessor

    def __init__(self, height: int, width: int):
        """Begin without maps, to collect the cross attention maps of one UNet call.

        height, width: size (h, w) of the call's input latents. From their ratio follow the height
        and width of each layer's maps, which arrive with all positions in one dimension.
        """
        self.ratio = height / width
        self.layers: list[torch.Tensor] = []
        self._cached: tuple[Spans, list[torch.Tensor]] | None = None  # last result of `_layers`

    def __call__(self, maps: torch.Tensor) -> None:
        """Collect the attention of one cross attention layer in a UNet call; it becomes word maps.

        maps: its attention weights (B, Tq, Tk), averaged over the heads. Only the last sample of
        the batch, the conditional one, is kept.
        """
        self.layers.append(maps[-1])

    def _layers(self, spans: Spans) -> list[torch.Tensor]:
        """Return the word maps (words, h, w) fp32 of each collected layer, in the order of calls.

        A word's map is the sum of the attention weights of its tokens. spans: for each word the
        positions of its tokens among the text encoder's outputs.
        """
        if self._cached is not None and self._cached[0] is spans:
            return self._cached[1]
        out: list[torch.Tensor] = []
        masks: dict[int, torch.Tensor] = {}
        for layer in self.layers:
            queries, keys = layer.shape
            rows = round((queries * self.ratio) ** 0.5)
            if keys not in masks:
                masks[keys] = _key_mask(spans, keys).to(layer.device)
            out.append((masks[keys] @ layer.float().T).reshape(-1, rows, queries // rows))
        self._cached = spans, out
        return out

    def by_resolution(self, spans: Spans) -> tuple[torch.Tensor, ...]:
        """Return the prompt words' attention maps (words, h, w) for each resolution of the layers.

        The coarsest come first. They are fp32 on the CPU, averaged over the cross attention layers
        of the resolution. spans: for each word the positions of its tokens in the text encoder's
        output. Returns () if no layer was collected.
        """
        by_size: dict[tuple[int, ...], list[torch.Tensor]] = {}
        for layer in self._layers(spans):
            by_size.setdefault(tuple(layer.shape[1:]), []).append(layer)
        return tuple(torch.stack(by_size[size]).mean(0).cpu() for size in sorted(by_size))

    def average(self, spans: Spans) -> torch.Tensor | None:
        """Return the prompt words' cross attention maps (words, h, w), averaged over all layers.

        They are fp32 on the CPU, at one resolution. spans: for each word the positions of its
        tokens in the text encoder's output. Returns None if no layer was collected.
        """
        layers = self._layers(spans)
        return average_maps(layers).cpu() if layers else None


def _key_mask(spans: Spans, keys: int) -> torch.Tensor:
    """Return a matrix (words, keys) that sums the attention weights of each word's tokens.

    It is 1 where the key is a token of the word, else 0. spans: for each word the positions of its
    tokens. keys: number of keys of the cross attention.
    """
    rows = [[0.0] * keys for _ in spans]
    for row, span in zip(rows, spans, strict=True):
        for key in span:
            row[key] = 1.0
    return torch.tensor(rows).reshape(len(spans), keys)


def average_maps(layers: list[torch.Tensor]) -> torch.Tensor:
    """Resample word maps (words, h, w) of several layers to one resolution and average them.

    A word map tells how much each position of the picture attends to a word of the prompt. The
    resolution is that of the finest layer whose smaller side is at most 16; if there is none, that
    of the finest layer.
    """
    sizes = [layer.shape[1:] for layer in layers]
    size = max([s for s in sizes if min(s) <= 16] or sizes, key=lambda s: s[0] * s[1])
    total = layers[0].new_zeros((len(layers[0]), *size))
    if not len(layers[0]):
        return total
    for layer in layers:
        mode = "area" if layer.shape[1] > size[0] else "bilinear"
        total = total + torch.nn.functional.interpolate(layer[None], size, mode=mode)[0]
    return total / len(layers)
