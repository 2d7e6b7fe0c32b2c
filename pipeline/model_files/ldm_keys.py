"""Map diffusers' tensor names to those of a single .safetensors file in the original layout.

The original layout is that of CompVis/latent-diffusion and, for SD 2.x and XL, of
Stability-AI/generative-models. The tables below map paths of modules, without the prefix that the
component has in the file. `plan` maps single tensors and says how each is stored: unchanged, as a
1x1 convolution, as a third of a joint matrix, or transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RESNET = {  # from diffusers' name to latent-diffusion's, inside one ResNet block of the UNet
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TRANSFORMER = (  # modules of one transformer block, which have the same names in both layouts
    *(f"attn{i}.{m}" for i in (1, 2) for m in ("to_q", "to_k", "to_v", "to_out.0")),
    *("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"),
)
UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
OPEN_CLIP = {  # from transformers' name to OpenCLIP's, inside one layer
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
PREFIXES = {  # from component and family to what its tensor names in a single file begin with
    "unet": dict.fromkeys(("sd1", "sd2", "xl"), "model.diffusion_model."),
    "vae": dict.fromkeys(("sd1", "sd2", "xl"), "first_stage_model."),
    "text_encoder": {
        "sd1": "cond_stage_model.transformer.text_model.",
        "sd2": "cond_stage_model.model.",
        "xl": "conditioner.embedders.0.transformer.text_model.",
    },
    "text_encoder_2": {"xl": "conditioner.embedders.1.model."},
}


@dataclass(frozen=True)
class Stored:
    """The name and form in which a file stores a tensor of a diffusers or transformers network.

    how: "" unchanged; "conv": as (O, I, 1, 1) instead of (O, I); "T": transposed; "rows:i": in a
    matrix (3 * O, I) that joins query, key and value, as its rows i * O to (i + 1) * O, i = 0, 1,
    2.
    """

    name: str
    how: str = ""

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the checkpoint file's tensor in which a network's tensor is stored.

        shape: of the tensor in the diffusers or transformers network.
        """
        if self.how == "conv":
            return (*shape, 1, 1)
        if self.how == "T":
            return shape[::-1]
        return (shape[0] * 3, *shape[1:]) if self.how else shape

    def take(self, tensor: Tensor) -> Tensor:
        """Convert a tensor as the file stores it to the network's tensor, as `how` says.

        tensor: the file's tensor `name`. It is transposed, loses two dimensions of size 1, or is
        reduced to a third of its rows; with `how` "" it is returned unchanged.
        """
        if self.how == "conv":
            return tensor[..., 0, 0]
        if self.how == "T":
            return tensor.T.contiguous()
        return tensor.chunk(3)[int(self.how[-1])] if self.how else tensor


def unet_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Map the module paths of diffusers' UNet2DConditionModel to those in single-file checkpoints.

    The latter are in CompVis' original layout, without the UNet's prefix: "conv_in" becomes
    "input_blocks.0.0". config: the UNet's config.json.
    """
    names = dict(UNET)
    levels = len(config["block_out_channels"])
    layers = config["layers_per_block"]
    depths = _per_level(config.get("transformer_layers_per_block", 1), levels)

    def resnet(ours: str, theirs: str) -> None:
        for inner, old in RESNET.items():
            names[f"{ours}.{inner}"] = f"{theirs}.{old}"

    def transformer(ours: str, theirs: str, depth: int) -> None:
        for inner in ("norm", "proj_in", "proj_out"):
            names[f"{ours}.{inner}"] = f"{theirs}.{inner}"
        for block in range(depth):
            for inner in TRANSFORMER:
                path = f"transformer_blocks.{block}.{inner}"
                names[f"{ours}.{path}"] = f"{theirs}.{path}"

    place = 0
    for i, kind in enumerate(config["down_block_types"]):
        for j in range(layers):
            place += 1
            resnet(f"down_blocks.{i}.resnets.{j}", f"input_blocks.{place}.0")
            if kind.startswith("CrossAttn"):
                transformer(f"down_blocks.{i}.attentions.{j}", f"input_blocks.{place}.1", depths[i])
        if i < levels - 1:
            place += 1
            names[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{place}.0.op"
    resnet("mid_block.resnets.0", "middle_block.0")
    transformer("mid_block.attentions.0", "middle_block.1", depths[-1])
    resnet("mid_block.resnets.1", "middle_block.2")
    place = -1
    for i, kind in enumerate(config["up_block_types"]):
        attends = kind.startswith("CrossAttn")
        for j in range(layers + 1):
            place += 1
            resnet(f"up_blocks.{i}.resnets.{j}", f"output_blocks.{place}.0")
            if attends:
                depth = depths[levels - 1 - i]
                transformer(f"up_blocks.{i}.attentions.{j}", f"output_blocks.{place}.1", depth)
        if i < levels - 1:
            names[f"up_blocks.{i}.upsamplers.0.conv"] = (
                f"output_blocks.{place}.{2 if attends else 1}.conv"
            )
    return names


def vae_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Map the module paths of diffusers' AutoencoderKL to those in single-file checkpoints.

    The latter are in CompVis' original layout, without the VAE's prefix: "encoder.conv_norm_out"
    becomes "encoder.norm_out". config: the VAE's config.json.
    """
    names = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]

    def resnet(ours: str, theirs: str) -> None:
        for inner in ("norm1", "conv1", "norm2", "conv2"):
            names[f"{ours}.{inner}"] = f"{theirs}.{inner}"
        names[f"{ours}.conv_shortcut"] = f"{theirs}.nin_shortcut"

    for half, side, count in (("encoder", "down", layers), ("decoder", "up", layers + 1)):
        names[f"{half}.conv_in"] = f"{half}.conv_in"
        names[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        names[f"{half}.conv_out"] = f"{half}.conv_out"
        for i in range(levels):
            place = f"{half}.{side}.{i if side == 'down' else levels - 1 - i}"
            for j in range(count):
                resnet(f"{half}.{side}_blocks.{i}.resnets.{j}", f"{place}.block.{j}")
            if i < levels - 1:
                names[f"{half}.{side}_blocks.{i}.{side}samplers.0.conv"] = (
                    f"{place}.{side}sample.conv"
                )
        for j in (0, 1):
            resnet(f"{half}.mid_block.resnets.{j}", f"{half}.mid.block_{j + 1}")
        ours, theirs = f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"
        names[f"{ours}.group_norm"] = f"{theirs}.norm"
        for inner, old in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            names[f"{ours}.{inner}"] = f"{theirs}.{old}"
    return names


def plan(
    component: str, prefix: str, config: Mapping[str, Any], keys: Iterable[str]
) -> dict[str, Stored]:
    """Return where a single-file checkpoint stores each tensor of `keys`: its name and form there.

    The form says, for example, that the file's matrix is transposed.

    component: "unet", "vae", "text_encoder" or "text_encoder_2". prefix: what the names of its
    tensors in the file begin with ("first_stage_model."). config: its config.json. keys: tensor
    names of diffusers' or transformers' state dict, of text encoders without "text_model."; they
    are the keys of the result. Raises KeyError for a tensor that CompVis' original layout lacks.
    """
    if component in ("unet", "vae"):
        names = (unet_names if component == "unet" else vae_names)(config)
        joint = re.compile(r"mid_block\.attentions\.0\.to_\w+(\.0)?\.weight")

        def find(key: str) -> Stored:
            path, _, leaf = key.rpartition(".")
            conv = component == "vae" and joint.search(key)
            return Stored(f"{prefix}{names[path]}.{leaf}", "conv" if conv else "")

    elif prefix.endswith("text_model."):

        def find(key: str) -> Stored:
            return Stored(prefix + key)

    else:

        def find(key: str) -> Stored:
            found = _open_clip(key)
            return Stored(prefix + found.name, found.how)

    return {key: find(key) for key in keys}


def _open_clip(key: str) -> Stored:
    """Return how OpenCLIP stores the tensor `key` of a text encoder: its name there and its form.

    The form says if it is stored unchanged, transposed, or as a third of a joined matrix. key: the
    tensor's name in transformers' CLIPTextModel. Raises KeyError for a tensor that OpenCLIP does
    not have.
    """
    direct = {
        "embeddings.token_embedding.weight": Stored("token_embedding.weight"),
        "embeddings.position_embedding.weight": Stored("positional_embedding"),
        "text_projection.weight": Stored("text_projection", "T"),
        "final_layer_norm.weight": Stored("ln_final.weight"),
        "final_layer_norm.bias": Stored("ln_final.bias"),
    }
    if key in direct:
        return direct[key]
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(\w+)", key)
    if match is None:
        raise KeyError(key)
    layer, inner, leaf = match.groups()
    base = f"transformer.resblocks.{layer}"
    if inner in OPEN_CLIP:
        return Stored(f"{base}.{OPEN_CLIP[inner]}.{leaf}")
    third = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj").index(inner)
    return Stored(f"{base}.attn.in_proj_{leaf}", f"rows:{third}")


def _per_level(value: Any, levels: int) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * levels
