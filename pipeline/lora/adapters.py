"""Puts LoRAs onto a loaded model for one call and takes them off again; no weight is changed.

A forward hook on each layer adds scale * up(mid(down(x))) to what the layer gives. Attention and
GroupNorm backends call those layers as modules, so every backend works with every LoRA.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, short
from ..model_files import ldm_keys
from ..model_files.lora_keys import FAMILIES, layer_names
from .products import Product
from .reading import LoraFile, LowRankDelta, read_lora

MAX_CACHED_FILES = 4  # files whose matrices stay on the device


@dataclass(frozen=True)
class DenseDelta:
    """A layer's difference multiplied out, in the shape of its weight."""

    weight: Tensor
    scale: float


Delta = LowRankDelta | DenseDelta


@dataclass(frozen=True, eq=False)
class LoadedLora:
    """A LoRA on the model's device, in its type: for each network its layers and their parts."""

    name: str
    layers: dict[str, dict[nn.Module, Delta]]


Active = tuple[tuple[LoadedLora, float, float], ...]


class Adapters:
    """The LoRAs of one model. `networks`: its "unet", "text_encoder", maybe "text_encoder_2".

    device: where they compute, if that is not where their weights lie.
    """

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device | None = None):
        self.networks, self.device = dict(networks), device
        self._cross_attention_dim = _cross_attention_dim(self.networks["unet"])
        self._targets: dict[str, tuple[str, nn.Module]] = {}
        for network, module in self.networks.items():
            paths = {
                p: m for p, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))
            }
            old = ldm_keys.unet_names(module.config) if network == "unet" else {}
            for name, path in layer_names(network, paths, old):
                self._targets.setdefault(name, (network, paths[path]))
        self._active: Active = ()
        self._hooks: list = []
        self._files: OrderedDict[tuple, LoadedLora] = OrderedDict()
        self._reading = threading.Lock()

    def load(self, path: str | os.PathLike) -> LoadedLora:
        """The file read and fitted; the last few files are kept. InputError as `read` and `fit`."""
        path = Path(path)
        if not path.is_file():
            return self.fit(read_lora(path))  # which says what is wrong with it
        found = path.stat()
        key = os.path.abspath(path), found.st_size, found.st_mtime_ns
        with self._reading:
            if key not in self._files:
                self._files[key] = self.fit(read_lora(path))
                while len(self._files) > MAX_CACHED_FILES:
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            return self._files[key]

    def fit(self, lora: LoraFile) -> LoadedLora:
        """`lora` on this model's layers; InputError, and nothing done, where a part fits none."""
        found, misfits = {}, []
        for name, part in lora.parts.items():
            network, layer = self._targets.get(name, (None, None))
            shaped = layer is not None and _reshape_delta(layer, part)
            if shaped and (network, layer) not in found:
                found[network, layer] = shaped
            else:
                misfits.append(name)
        if misfits:
            raise InputError(self._refusal(lora, misfits))
        layers: dict[str, dict[nn.Module, Delta]] = {network: {} for network in self.networks}
        for (network, layer), part in found.items():
            layers[network][layer] = _to_device(lora, layer, part, self.device)
        return LoadedLora(lora.path.name, layers)

    def install(self, active: Active) -> None:
        """Put exactly these on: (LoRA, its weight in the UNet, its weight in the text encoders).

        () is the bare model. The caller holds the model's lock.
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
        if (
            lora.cross_attention_dim is None
            or lora.cross_attention_dim == self._cross_attention_dim
        ):
            made = f" for {_full_name(lora.family)}" if lora.family else ""
            return f"{name} is a LoRA{made} that was not made for this model: {example}."
        made = _full_name(FAMILIES.get(lora.cross_attention_dim)) or "another model"
        here = _full_name(FAMILIES.get(self._cross_attention_dim)) or "another one"
        return (
            f"{name} is a LoRA for {made} (it listens to words of size {lora.cross_attention_dim});"
            f" this model is {here} ({self._cross_attention_dim}): {example}."
        )


class _Hook:
    """Adds the parts' outputs to a layer's. parts: [(part, its weight times its scale)]."""

    def __init__(self, parts: Iterable[tuple[Delta, float]]):
        self.parts = tuple(parts)

    def __call__(self, layer: nn.Module, args: tuple, out: Tensor) -> Tensor:
        for part, scale in self.parts:
            run = _conv if isinstance(layer, nn.Conv2d) else _linear
            out = run(layer, args[0], out, part, scale)
        return out


def _linear(layer: nn.Linear, x: Tensor, out: Tensor, part: Delta, scale: float) -> Tensor:
    if isinstance(part, DenseDelta):
        return torch.add(out, F.linear(x, part.weight), alpha=scale)
    hidden = F.linear(x, part.down).flatten(0, -2)
    return torch.addmm(out.flatten(0, -2), hidden, part.up.T, alpha=scale).view_as(out)


def _conv(layer: nn.Conv2d, x: Tensor, out: Tensor, part: Delta, scale: float) -> Tensor:
    """The kernel that stands at the layer's own place has its stride, padding and dilation."""
    if isinstance(part, DenseDelta):
        return torch.add(out, layer._conv_forward(x, part.weight, None), alpha=scale)
    if part.mid is None:
        hidden = layer._conv_forward(x, part.down, None)
    else:
        hidden = layer._conv_forward(F.conv2d(x, part.down), part.mid, None)
    return torch.add(out, F.conv2d(hidden, part.up), alpha=scale)


def _by_layer(active: Active) -> dict[nn.Module, list[tuple[Delta, float]]]:
    """Each layer's parts with their factors; a LoRA named twice counts once, its weights added."""
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
    """`part` in the shapes that the layer takes, or None where it does not fit.

    Files have (r, in, 1, 1) for (r, in) and the other way round, as their trainer's UNet had it.
    """
    if isinstance(part, Product):
        return part if part.size == (len(layer.weight), layer.weight[0].numel()) else None
    conv = isinstance(layer, nn.Conv2d)
    if layer.groups != 1 if conv else part.mid is not None:
        return None
    kernel, one = (tuple(layer.kernel_size), (1, 1)) if conv else ((), ())
    ends = (
        (layer.in_channels, layer.out_channels) if conv else (layer.in_features, layer.out_features)
    )
    rank = len(part.down)
    wanted = [(rank, ends[0]) + (kernel if part.mid is None else one)]
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
    """A shape without a kernel of 1x1."""
    shape = tuple(shape)
    return shape[:2] if shape[2:] == (1, 1) else shape


def _to_device(
    lora: LoraFile, layer: nn.Module, part: LowRankDelta | Product, device: torch.device | None
) -> Delta:
    weight = layer.weight

    def to_device(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        tensor = tensor.to(device or weight.device, weight.dtype)
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"{short(lora.path.name)} holds values that {str(weight.dtype)[6:]} cannot;"
                " load the model with dtype fp32."
            )
        return tensor

    if isinstance(part, Product):
        return DenseDelta(to_device(part.matrix().reshape(weight.shape)), part.scale)
    return LowRankDelta(to_device(part.down), to_device(part.up), to_device(part.mid), part.scale)


def _cross_attention_dim(unet: nn.Module) -> int:
    """The size of the words that the UNet listens to."""
    width = unet.config.cross_attention_dim
    return max(width) if isinstance(width, (list, tuple)) else width


def _full_name(family: str | None) -> str:
    return (family or "").replace("SD", "Stable Diffusion")
