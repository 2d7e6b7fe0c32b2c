"""Install LoRAs on a loaded model with forward hooks, and remove them; no weight is changed.

The hook of a layer adds scale * up(mid(down(x))) to its output. Attention and GroupNorm backends
call the layers as modules, which runs their hooks, so every backend works with every LoRA.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, short
from ..lru import LruCache
from ..model_files import ldm_keys
from ..model_files.lora_keys import FAMILIES, layer_names
from .lycoris import Product
from .reading import LoraFile, LowRankDelta, read_lora

MAX_CACHED_FILES = 4  # LoRA files whose matrices stay on the device


@dataclass(frozen=True)
class DenseDelta:
    """What a LoRA adds to a layer's weight, as one full matrix: scale * weight.

    weight: in the shape of the layer's weight, on its device in its dtype.
    """

    weight: Tensor
    scale: float


Delta = LowRankDelta | DenseDelta


@dataclass(frozen=True, eq=False)
class LoadedLora:
    """A LoRA that is matched to one model's layers, on the model's device in its dtype.

    name: of its file. layers: from network ("unet") and layer, a module, to what the LoRA adds to
    it.
    """

    name: str
    layers: dict[str, dict[nn.Module, Delta]]


# Each LoRA with its weight in the UNet and its weight in the text encoders.
Active = tuple[tuple[LoadedLora, float, float], ...]


class Adapters:
    """Loads LoRA files for one model and installs them on its networks.

    networks: the model's "unet" and "text_encoder", for XL also "text_encoder_2". device: where
    they compute if their weights are kept in main memory; None: where the weights are.
    """

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device | None = None):
        self.networks, self.device = dict(networks), device
        self._cross_attention_dim = _cross_attention_dim(self.networks["unet"])
        self._targets: dict[str, tuple[str, nn.Module]] = {}
        for network, module in self.networks.items():
            paths = {
                p: m for p, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))
            }
            config = cast(Mapping[str, Any], module.config)
            old = ldm_keys.unet_names(config) if network == "unet" else {}
            for name, path in layer_names(network, paths, old):
                self._targets.setdefault(name, (network, paths[path]))
        self._active: Active = ()
        self._hooks: list = []
        self._files: LruCache[tuple[str, int, int], LoadedLora] = LruCache(MAX_CACHED_FILES)
        self._reading = threading.Lock()  # two requests for one file read it once

    def load(self, path: str | os.PathLike) -> LoadedLora:
        """Read a LoRA file, match it to this model's layers and move it to the model's device.

        The last 4 files are cached. Raises InputError for a file that is missing, is no LoRA, or
        does not fit this model.
        """
        path = Path(path)
        if not path.is_file():
            return self.fit(read_lora(path))  # which says what is wrong with it
        state = path.stat()
        key = os.path.abspath(path), state.st_size, state.st_mtime_ns
        with self._reading:
            loaded = self._files.get(key)
            if loaded is None:
                loaded = self.fit(read_lora(path))
                self._files.put(key, loaded)
            return loaded

    def fit(self, lora: LoraFile) -> LoadedLora:
        """Match each of a LoRA's matrices to a layer of this model and move them to its device.

        Raises InputError if some fit no layer, or hold values too large for the model's dtype.
        """
        found: dict[tuple[str, nn.Module], LowRankDelta | Product] = {}
        misfits: list[str] = []
        for name, part in lora.parts.items():
            target = self._targets.get(name)
            shaped = _reshape_delta(target[1], part) if target else None
            if target and shaped and target not in found:
                found[target] = shaped
            else:
                misfits.append(name)
        if misfits:
            raise InputError(self._refusal(lora, misfits))
        layers: dict[str, dict[nn.Module, Delta]] = {network: {} for network in self.networks}
        for (network, layer), part in found.items():
            layers[network][layer] = _to_device(lora, layer, part, self.device)
        return LoadedLora(lora.path.name, layers)

    def install(self, active: Active) -> None:
        """Make these LoRAs, and no others, take part in what the model computes from now on.

        active: for each LoRA (the LoRA, strength in the UNet, in the text encoders); () removes
        all. The caller must hold the model's lock.
        """
        if active == self._active:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._active = [], ()
        for layer, parts in _by_layer(active).items():
            self._hooks.append(layer.register_forward_hook(_Hook(parts)))
        self._active = active

    def _refusal(self, lora: LoraFile, misfits: list[str]) -> str:
        fits = len(lora.parts) - len(misfits)
        example = f"{fits} of its {len(lora.parts)} parts fit, {short(misfits[0])} does not"
        name = short(lora.path.name)
        if lora.cross_attention_dim in (None, self._cross_attention_dim):
            made = f" for {_full_name(lora.family)}" if lora.family else ""
            return f"{name} is a LoRA{made} that was not made for this model: {example}."
        made = _full_name(FAMILIES.get(lora.cross_attention_dim or 0)) or "another model"
        here = _full_name(FAMILIES.get(self._cross_attention_dim)) or "another one"
        return (
            f"{name} is a LoRA for {made} (it takes a context of size {lora.cross_attention_dim});"
            f" this model is {here} ({self._cross_attention_dim}): {example}."
        )


class _Hook:
    """A PyTorch forward hook that adds LoRAs to a layer's output.

    parts: for each LoRA (its matrices for this layer, the factor by which their output counts).
    """

    def __init__(self, parts: Iterable[tuple[Delta, float]]):
        self.parts = tuple(parts)

    def __call__(self, layer: nn.Module, args: tuple, out: Tensor) -> Tensor:
        for part, scale in self.parts:
            if isinstance(layer, nn.Conv2d):
                out = _conv(layer, args[0], out, part, scale)
            else:
                out = _linear(args[0], out, part, scale)
        return out


def _linear(x: Tensor, out: Tensor, part: Delta, scale: float) -> Tensor:
    if isinstance(part, DenseDelta):
        return torch.add(out, F.linear(x, part.weight), alpha=scale)
    hidden = F.linear(x, part.down).flatten(0, -2)
    return torch.addmm(out.flatten(0, -2), hidden, part.up.T, alpha=scale).view_as(out)


def _conv(layer: nn.Conv2d, x: Tensor, out: Tensor, part: Delta, scale: float) -> Tensor:
    """Return the output of a convolution layer with a LoRA: `out` plus `scale` times the LoRA's.

    x: the layer's input (B, C, H, W). out: its output without LoRA. part: the LoRA's matrices. Of
    its two or three convolutions, the one with the layer's kernel size uses the layer's stride and
    padding.
    """
    if isinstance(part, DenseDelta):
        return torch.add(out, layer._conv_forward(x, part.weight, None), alpha=scale)
    if part.mid is None:
        hidden = layer._conv_forward(x, part.down, None)
    else:
        hidden = layer._conv_forward(F.conv2d(x, part.down), part.mid, None)
    return torch.add(out, F.conv2d(hidden, part.up), alpha=scale)


def _by_layer(active: Active) -> dict[nn.Module, list[tuple[Delta, float]]]:
    """Return what LoRAs add to each layer: for each LoRA (its matrices, a factor for them).

    active: for each LoRA (the LoRA, strength in the UNet, in the text encoders). The factor is the
    strength times the LoRA's own scale, alpha / rank. A LoRA that is named twice counts once, with
    the sum of its strengths.
    """
    sums: dict[LoadedLora, list[float]] = {}
    for fitted, unet, text in active:
        total = sums.setdefault(fitted, [0.0, 0.0])
        total[0] += unet
        total[1] += text
    layers: dict[nn.Module, list[tuple[Delta, float]]] = {}
    for fitted, (unet, text) in sums.items():
        for network, parts in fitted.layers.items():
            weight = unet if network == "unet" else text
            for layer, part in parts.items():
                if weight * part.scale:
                    layers.setdefault(layer, []).append((part, weight * part.scale))
    return layers


def _reshape_delta(layer: nn.Module, part: LowRankDelta | Product) -> LowRankDelta | Product | None:
    """Return a LoRA's matrices in the shapes that `layer` takes, or None if they do not fit it.

    Some files have (r, in, 1, 1) for a linear layer, or (r, in) for a 1x1 convolution, because the
    UNet that they were trained on had the other kind of layer.
    """
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    if isinstance(part, Product):
        return part if part.size == (len(layer.weight), layer.weight[0].numel()) else None
    kernel: tuple[int, ...] = ()
    one: tuple[int, ...] = ()
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1:
            return None
        kernel, one = tuple(layer.kernel_size), (1, 1)
        ends = layer.in_channels, layer.out_channels
    else:
        if part.mid is not None:
            return None
        ends = layer.in_features, layer.out_features
    rank = len(part.down)
    wanted: list[tuple[int, ...]] = [(rank, ends[0]) + (kernel if part.mid is None else one)]
    if part.mid is not None:
        wanted.append((len(part.mid), rank, *kernel))
        rank = len(part.mid)
    wanted.append((ends[1], rank, *one))
    have = [t for t in (part.down, part.mid, part.up) if t is not None]
    if any(_bare(t.shape) != _bare(w) for t, w in zip(have, wanted, strict=True)):
        return None
    down, *mid, up = (t.reshape(w) for t, w in zip(have, wanted, strict=True))
    return LowRankDelta(down, up, mid[0] if mid else None, part.scale)


def _bare(shape: Iterable[int]) -> tuple[int, ...]:
    """Return a weight's shape without a trailing 1x1 kernel: (r, in) for (r, in, 1, 1)."""
    shape = tuple(shape)
    return shape[:2] if shape[2:] == (1, 1) else shape


def _to_device(
    lora: LoraFile, layer: nn.Module, part: LowRankDelta | Product, device: torch.device | None
) -> Delta:
    """Move a LoRA's matrices for one layer to that layer's device and dtype, ready to be added.

    part: the matrices; those of a LoHa or LoKr are multiplied out to one matrix. lora: the LoRA's
    file, for the error message. device: where the layer computes, if its weights are kept in main
    memory; None means where its weights are. Raises InputError if a value overflows the dtype.
    """
    weight = cast(Tensor, layer.weight)

    def to_device(tensor: Tensor) -> Tensor:
        tensor = tensor.to(device or weight.device, weight.dtype)
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"{short(lora.path.name)} holds values that {str(weight.dtype)[6:]} cannot;"
                " load the model with dtype fp32."
            )
        return tensor

    if isinstance(part, Product):
        return DenseDelta(to_device(part.matrix().reshape(weight.shape)), part.scale)
    mid = None if part.mid is None else to_device(part.mid)
    return LowRankDelta(to_device(part.down), to_device(part.up), mid, part.scale)


def _cross_attention_dim(unet: nn.Module) -> int:
    """Return the size E of the context (1, K, E) that the UNet's cross-attention takes."""
    width = cast(Any, unet.config).cross_attention_dim
    return max(width) if isinstance(width, (list, tuple)) else width


def _full_name(family: str | None) -> str:
    return (family or "").replace("SD", "Stable Diffusion")
