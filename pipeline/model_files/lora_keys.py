"""Parse the tensor names of LoRA files as kohya, peft and diffusers write them; imports no torch.

A tensor's name is the name of a layer plus a suffix, its role: "lora_unet_mid_block_...", then
".lora_down.weight". The table ROLES lists the suffixes; the names of layers are derived from the
module paths of the loaded networks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

ROLES = {  # from a name's suffix to the role: which tensor of the layer it is
    ".lora_down.weight": "down",  # kohya
    ".lora_mid.weight": "mid",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",  # peft
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",  # diffusers, and the older `attn1.processor.to_q_lora`
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    **{f".hada_{r}": f"LoHa {r}" for r in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},  # LyCORIS
    **{f".lokr_{r}": f"LoKr {r}" for r in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
}
OTHERS = {  # other adapters: from a pattern for the end of a tensor's name to what the file is
    r"\.dora_scale$|\.lora_magnitude_vector": "a DoRA",
    r"\.oft_\w+(?:\.weight)?$": "an OFT",
    r"\.diff(?:_b)?$|\.[wb]_norm$": "a file of full differences",
    r"\.lora_B(?:\.default)?\.bias$": "a LoRA with biases",
}
FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SD XL"}  # by cross_attention_dim
# NO_UNET matches layers of other architectures (Flux, SD 3). ONLY_XL matches layers that only SD XL
# has: those of a second text encoder, and a second transformer block in one attention block.
NO_UNET = r"double_blocks|single_blocks|joint_blocks|lora_transformer_|\btransformer\."
ONLY_XL = (
    r"^lora_te[12]_|^text_encoder_2\.|"
    r"(?:attentions[._]|_block_|blocks_\d+_)\d+[._]transformer_blocks[._]0*[1-9]"
)
TEXT_PREFIXES = {  # kohya's, from a text encoder to what the names of its layers begin with
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
}
# From transformers' names of a text encoder's layers to those in older diffusers files.
OLD_TEXT = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def split_key(key: str) -> tuple[str, str] | None:
    """Split the name of a LoRA file's tensor into (layer, role); None for a name that no LoRA has.

    layer: the layer's name, without "base_model.model." (peft) and ".processor" (diffusers). role:
    which tensor of the layer it is: "down", "mid", "up", "alpha", or in LyCORIS files the method
    and the matrix ("LoHa w1_a"). "lora_unet_conv_in.lora_up.weight" gives ("lora_unet_conv_in",
    "up").
    """
    layer, role = key, None
    if key.endswith(".alpha"):
        layer, role = key.removesuffix(".alpha"), "alpha"
    for suffix, name in ROLES.items():
        if layer.endswith(suffix):  # network_alphas repeat the suffix of their tensor
            layer, role = layer.removesuffix(suffix), role or name
            break
    if role is None:
        return None
    return layer.replace("base_model.model.", "").replace(".processor.", "."), role


def other_kind(names: Iterable[str]) -> str | None:
    """Return what an adapter file of an unsupported method is ("a DoRA", "an OFT"), else None.

    names: of the file's tensors. For an error message; None for a plain LoRA and any other file.
    """
    text = "\n".join(names)
    return next((k for end, k in OTHERS.items() if re.search(end, text, re.MULTILINE)), None)


def is_lora(header: Mapping[str, Any]) -> bool:
    """Return whether a file is a LoRA or another adapter, by its tensor names.

    header: a mapping whose keys are the tensor names. True also for adapters of unsupported methods
    (DoRA, OFT, ...), which are refused with an error message when they are read.
    """
    return any(split_key(name) is not None for name in header) or other_kind(header) is not None


def cross_attention_dim(header: Mapping[str, Any]) -> int | None:
    """Return the size E of the text context that a LoRA's cross-attention layers take.

    None for a LoRA without such layers. header: from tensor name to {"shape": [...], ...}.
    """
    return _width(header, r"attn2[._](?:processor[._])?to_[kv]\b|attn2\.processor\.to_[kv]_lora")


def lora_family(header: Mapping[str, Any]) -> str:
    """Return the family that a LoRA was made for: "SD 1.x", "SD 2.x", "SD XL" or "" (unknown).

    header: from tensor name to {"shape": [...], ...}.
    """
    names = "\n".join(header)
    if re.search(NO_UNET, names):
        return ""
    if cross_attention_dim(header) is None and re.search(ONLY_XL, names, re.MULTILINE):
        return FAMILIES[2048]
    width = cross_attention_dim(header) or _width(
        header, r"^(?:lora_te_|text_encoder\.).*(?:[qkv]_proj|to_[qkv]_)"
    )
    return FAMILIES.get(width or 0, "")


def _width(header: Mapping[str, Any], pattern: str) -> int | None:
    """Return the input size of the first LoRA layer whose tensor name matches `pattern`, or None.

    header: from tensor name to {"shape": [...], ...}. pattern: a regular expression.
    """
    for name, info in header.items():
        if re.search(pattern, name):
            place = split_key(name)
            if place and place[1] in ("down", "LoHa w1_b") and len(info["shape"]) >= 2:
                return info["shape"][1]
    return None


def layer_names(
    network: str, paths: Iterable[str], ldm: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield all (layer name in a LoRA file, module path) pairs, to match LoRA layers to modules.

    A module has several names, because kohya, peft and diffusers spell them differently. network:
    "unet", "text_encoder" or "text_encoder_2". paths: of its modules, as in named_modules. ldm: for
    a UNet, from module path in diffusers to that in CompVis' original layout; {} for text encoders.
    """
    for path in paths:
        if network == "unet":
            names = _unet_names(path, ldm.get(path))
        else:
            names = _text_names(network, path.removeprefix("text_model."))
        for name in names:
            yield name, path


def _unet_names(path: str, ldm: str | None) -> Iterator[str]:
    """Yield the layer names that LoRA files may use for the module `path` of diffusers' UNet.

    ldm: the module's path in CompVis' original layout, None for a module that this lacks.
    """
    for spelled in {path, re.sub(r"\.to_out\.0$", ".to_out", path)}:
        yield spelled
        yield f"unet.{spelled}"
        yield "lora_unet_" + spelled.replace(".", "_")
    if ldm:
        yield "lora_unet_" + ldm.replace(".", "_")


def _text_names(network: str, path: str) -> Iterator[str]:
    """Yield the layer names that LoRA files may use for the module `path` of a text encoder.

    network: "text_encoder" or "text_encoder_2". path: without "text_model.", which only some
    versions of transformers put before it.
    """
    head, _, last = path.rpartition(".")
    for spelled in {path, f"{head}.{OLD_TEXT.get(last, last)}" if head else path}:
        for root in ("", "text_model."):
            yield f"{network}.{root}{spelled}"
            if network == "text_encoder":
                yield root + spelled
            for prefix in TEXT_PREFIXES[network]:
                yield prefix + (root + spelled).replace(".", "_")
