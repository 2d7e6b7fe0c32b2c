"""Read a LoRA file of kohya, peft, diffusers or LyCORIS into matrices for each layer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, short
from ..model_files import lora_keys
from ..model_files.json_file import read_json
from ..model_files.safetensors_header import read_header
from .lycoris import PRODUCTS, Product, Size

if TYPE_CHECKING:
    from torch import Tensor

MAX_TENSORS = 20_000  # Stable Diffusion XL has 2,000 layers, each with up to four
ROLES = ("down", "mid", "up")  # matrices of a layer, in the order in which they are applied
DTYPES = ("F16", "BF16", "F32", "F64")
ALPHA_DTYPES = (*DTYPES, "I8", "U8", "I16", "I32", "I64")
PEFT = "lora_adapter_metadata"  # the key under which diffusers writes peft's configuration
PEFT_NAMES = ("adapter_model.safetensors", "adapter_config.json")  # peft's own two files


@dataclass(frozen=True)
class LowRankDelta:
    """What a LoRA adds to one layer's output for the input x: scale * up(mid(down(x))).

    down: (r, in), of a convolution (r, in, kh, kw). up: (out, r) or (out, r, 1, 1). mid: None, or
    (r, r, kh, kw) of a convolution that is decomposed into three; `down` is then (r, in, 1, 1). As
    read from a file, tensors are on the CPU in its dtype.
    """

    down: Tensor
    up: Tensor
    mid: Tensor | None
    scale: float  # alpha / rank


@dataclass(frozen=True)
class LoraFile:
    """The contents of a LoRA file, not yet matched to a model.

    parts: the matrices of each layer, by the layer's name in the file ("lora_unet_..."). family: of
    the models that it was made for, "SD 1.x", "SD 2.x" or "SD XL"; "" if unknown.
    cross_attention_dim: the context size E that its cross-attention layers take; None if it changes
    no such layer.
    """

    path: Path
    parts: dict[str, LowRankDelta | Product]
    family: str
    cross_attention_dim: int | None


def read_lora(path: str | os.PathLike) -> LoraFile:
    """Read a LoRA from a .safetensors file of kohya, peft, diffusers or LyCORIS.

    A LoRA without alpha is scaled by 1, as if its alpha were its rank. Raises InputError for
    anything else than a LoRA, for a damaged file, and for values that are not finite.
    """
    path = Path(path)
    opened = read_header(path)
    header, metadata = opened.tensors, opened.metadata
    layers = _layers(path, header)
    tensors = _tensors(path, header)
    configs = _peft_configs(path, metadata)
    parts: dict[str, LowRankDelta | Product] = {}
    for layer, keys in layers.items():
        given = {role: tensors[key] for role, key in keys.items()}
        alpha = given.pop("alpha", None)
        rank = _rank({role: t.shape for role, t in given.items()})
        scale = 1.0
        if rank is not None:
            scale = _peft_scale(layer, rank, configs) if alpha is None else float(alpha) / rank
        kind = _kind(given)
        if kind:
            matrices = {role.removeprefix(f"{kind} "): t for role, t in given.items()}
            parts[layer] = Product(kind, matrices, scale)
        else:
            parts[layer] = LowRankDelta(given["down"], given["up"], given.get("mid"), scale)
    return LoraFile(
        path, parts, lora_keys.lora_family(header), lora_keys.cross_attention_dim(header)
    )


def _layers(path: Path, header: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Group a LoRA file's tensors by layer, {layer: {role: tensor name}}, and check their shapes.

    A role is what the tensor is in its layer: "down", "mid", "up", "alpha", or in LyCORIS files
    "LoHa w1_a" and the like. header: from tensor name to its entry in the file's header. Raises
    InputError if the file is no LoRA, is incomplete, or has shapes that do not agree.
    """
    shown = short(path.name)
    if len(header) > MAX_TENSORS:
        raise InputError(
            f"{shown} names {len(header):,} tensors; a LoRA has at most {MAX_TENSORS:,}."
        )
    kind = lora_keys.other_kind(header)
    if kind:
        raise InputError(f"{shown} is {kind}, which is not read here; only plain LoRA is.")
    if not lora_keys.is_lora(header):
        raise InputError(f"{shown} is no LoRA: none of its {len(header):,} tensors belongs to one.")
    layers: dict[str, dict[str, str]] = {}
    for key, info in header.items():
        place = lora_keys.split_key(key)
        if place is None:
            raise InputError(f"{shown} holds the tensor {short(key)}, which no LoRA has.")
        layer, role = place
        if info["dtype"] not in (ALPHA_DTYPES if role == "alpha" else DTYPES):
            raise InputError(f"{shown}: {short(key)} has the type {info['dtype']}, no LoRA's.")
        if role in layers.setdefault(layer, {}):
            raise InputError(f"{shown} names the layer {short(layer)} twice.")
        layers[layer][role] = key
    for layer, keys in layers.items():
        shapes = {role: header[key]["shape"] for role, key in keys.items()}
        missing = [r for r in ("down", "up") if r not in keys and not _kind(keys)]
        if missing:
            raise InputError(
                f"{shown} is incomplete: the layer {short(layer)} has no {missing[0]} matrix."
            )
        if not _agree(shapes):
            sizes = ", ".join(f"{role} {short(shape)}" for role, shape in shapes.items())
            raise InputError(f"{shown}: the sizes of {short(layer)} do not agree: {short(sizes)}.")
    return layers


def _kind(roles: Iterable[str]) -> str | None:
    """Return the LyCORIS method of a layer, "LoHa" or "LoKr", or None for a plain LoRA.

    roles: what the layer's tensors are: "down", "up", ..., or "LoHa w1_a" and the like.
    """
    return next((kind for kind in PRODUCTS if any(r.startswith(f"{kind} ") for r in roles)), None)


def _rank(shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Return the rank of one layer's LoRA matrices; a LoRA's scale is alpha / rank.

    shapes: from each matrix's role in the layer ("down", "LoHa w1_a") to its shape. Returns None
    for a LoKr of two full matrices, which has no rank.
    """
    kind = _kind(shapes)
    if kind is None:
        return shapes["down"][0]
    size = _product_size(kind, shapes)
    return None if size is None else size.rank


def _product_size(kind: str, shapes: Mapping[str, Sequence[int]]) -> Size | None:
    return PRODUCTS[kind].size({r.removeprefix(f"{kind} "): s for r, s in shapes.items()})


def _agree(shapes: Mapping[str, list[int]]) -> bool:
    """Return whether the tensors that a LoRA file has for one layer fit each other in shape.

    shapes: from a tensor's role ("down", "up", "alpha", "LoHa w1_a", ...) to its shape. They fit if
    the matrices can be multiplied in their order, none is empty and alpha is one number.
    """
    shapes = dict(shapes)
    if math.prod(shapes.pop("alpha", [])) != 1 or not all(map(math.prod, shapes.values())):
        return False
    kind = _kind(shapes)
    if kind:
        return _product_size(kind, shapes) is not None
    chain = [shapes[role] for role in ROLES if role in shapes]
    return all(len(s) in (2, 4) for s in chain) and all(a[0] == b[1] for a, b in pairwise(chain))


def _tensors(path: Path, header: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read all tensors of a LoRA file by name; InputError if one holds NaN or infinity."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in header}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{short(path.name)} cannot be read: {short(error)}.") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{short(path.name)}: {short(name)} holds values that are not finite.")
    return tensors


def _peft_configs(path: Path, metadata: Mapping[str, str]) -> dict[str, dict]:
    """Return peft's configuration (alpha and so on) of each network in a LoRA file.

    It is in the file's metadata, where diffusers writes {"unet.lora_alpha": 8, ...}, or in
    adapter_config.json beside a file of peft. The result's keys are what the network's layer names
    begin with: "unet.", or "" where a network was saved alone. Raises InputError for a damaged
    configuration and for DoRA.
    """
    shown = short(path.name)
    config: Any = {}
    if PEFT in metadata:
        try:
            config = json.loads(metadata[PEFT])
        except (ValueError, RecursionError):
            raise InputError(f"{shown} is damaged: its {PEFT} is no JSON.") from None
    elif path.name == PEFT_NAMES[0] and path.with_name(PEFT_NAMES[1]).is_file():
        config = read_json(path.with_name(PEFT_NAMES[1]))
    if not isinstance(config, dict):
        raise InputError(f"{shown} is damaged: its peft configuration must be an object.")
    configs: dict[str, dict] = {}
    for key, value in config.items():
        prefix, dot, field = key.rpartition(".")
        configs.setdefault(prefix + dot, {})[field] = value
    for fields in configs.values():
        if fields.get("use_dora"):
            raise InputError(f"{shown} is a DoRA, which is not read here; only plain LoRA is.")
        _check_peft(shown, fields)
    return configs


def _check_peft(shown: str, fields: Mapping[str, Any]) -> None:
    patterns = fields.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise InputError(f"{shown}: peft's alpha_pattern must map layers to numbers.")
    for name, alpha in {"lora_alpha": fields.get("lora_alpha", 1), **patterns}.items():
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < 1e6:
            raise InputError(f"{shown}: peft's alpha of {short(name)} is {short(alpha)}.")


def _peft_scale(layer: str, rank: int, configs: Mapping[str, dict]) -> float:
    """Return the factor alpha / rank of a layer, with the alpha of peft's configuration.

    For a rank-stabilized LoRA (Kalajdzievski, arXiv 2312.03732) it is alpha / sqrt(rank). Without
    an alpha it is 1. configs: peft's configuration of each network, by what the network's layer
    names begin with ("unet.").
    """
    prefix = next((p for p in sorted(configs, reverse=True) if layer.startswith(p)), "")
    config = configs.get(prefix, {})
    alpha = config.get("lora_alpha")
    path = layer.removeprefix(prefix)
    # A pattern is the whole path or its end; "^" anchors it at the start. peft runs it as a regular
    # expression, which is not safe with a file from a stranger.
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        plain = pattern.removeprefix("^")
        if path == plain or (plain == pattern and path.endswith("." + plain)):
            alpha = value
            break
    if alpha is None:
        return 1.0
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
