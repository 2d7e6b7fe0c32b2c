"""Derive the configurations of a single-file checkpoint from the shapes of its tensors.

So a checkpoint needs no configuration file, and networks of other sizes than the published ones
work as well. What shapes do not tell follows from the family: the UNet of SD 1.x has 8 attention
heads, in SD 2.x, SD XL and CLIP each head has 64 channels.

In this module `family` is "sd1", "sd2" or "xl", and "original layout" means the tensor names of
CompVis/latent-diffusion and its successors, see ldm_keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import short
from .folder_checks import MAX_LAYERS
from .ldm_keys import PREFIXES

SCALING = {"sd1": 0.18215, "sd2": 0.18215, "xl": 0.13025}  # scaling_factor of the latents
# Transformer blocks in one attention block, and ResNet blocks in one level. SD XL has 10 and 2.
MAX_DEPTH, MAX_PER_LEVEL = 32, 8

Shapes = Mapping[str, tuple[int, ...]]  # from tensor name to shape


class DamagedCheckpoint(Exception):
    """A single-file checkpoint lacks a tensor or has one in an impossible shape.

    The message is a sentence without its subject, the file, which the caller puts before it: "is
    incomplete: ... is missing".
    """


class ComponentShapes:
    """The shapes of one network's tensors in a single-file checkpoint, to derive its configuration.

    prefix: what the names of the network's tensors begin with ("first_stage_model."). `shapes` of
    the constructor holds all tensors of the file; the attribute only the network's, without prefix.
    """

    def __init__(self, shapes: Shapes, prefix: str):
        self.prefix = prefix
        self.shapes = {k[len(prefix) :]: v for k, v in shapes.items() if k.startswith(prefix)}

    def get(self, name: str, sizes: int) -> tuple[int, ...]:
        """Return the shape of one tensor of the network, as the single-file checkpoint has it.

        name: the tensor's name without the network's prefix, such as "first_stage_model.". sizes:
        how many dimensions it must have. Raises DamagedCheckpoint where the tensor is missing, has
        another number of dimensions, or a dimension of size 0.
        """
        shape = self.shapes.get(name)
        if shape is None:
            raise DamagedCheckpoint(f"is incomplete: {short(self.prefix + name)} is missing")
        if len(shape) != sizes or not all(shape):
            raise DamagedCheckpoint(
                f"is damaged: {short(self.prefix + name)} has the shape {short(shape)}"
            )
        return tuple(shape)

    def count(self, start: str) -> int:
        """Return how many blocks or layers have tensor names that begin with `start` and a number.

        start: such as "input_blocks.". Raises DamagedCheckpoint where the numbers are not 0, 1, 2,
        ... without a gap, or there are more than 128 (MAX_LAYERS).
        """
        pattern = re.compile(re.escape(start) + r"(\d{1,4})\.")
        numbers = {int(m[1]) for k in self.shapes if (m := pattern.match(k))}
        missing = min(set(range(len(numbers))) - numbers, default=None)
        if missing is not None:
            raise DamagedCheckpoint(f"is incomplete: {self.prefix}{start}{missing} is missing")
        if len(numbers) > MAX_LAYERS:
            raise DamagedCheckpoint(f"is damaged: it has {len(numbers):,} of {self.prefix}{start}")
        return len(numbers)

    def depths(self) -> dict[str, int]:
        """Return the number of transformer blocks in each UNet block, by name ("input_blocks.1").

        Blocks without attention are not in the dict.
        """
        found: dict[str, set[str]] = {}
        for key in self.shapes:
            match = re.match(r"(\w+?(?:\.\d+)?)\.1\.transformer_blocks\.(\d{1,3})\.", key)
            if match:
                found.setdefault(match[1], set()).add(match[2])
        return {block: len(numbers) for block, numbers in found.items()}


def unet_config(part: ComponentShapes, family: str) -> dict[str, Any]:
    """Derive the config.json of diffusers' UNet2DConditionModel from a UNet's tensor shapes.

    part: the shapes, with tensor names of CompVis' original layout. family: "sd1", "sd2" or "xl".
    Raises DamagedCheckpoint where tensors are missing or sizes are impossible.
    """
    blocks, transformers = part.count("input_blocks."), part.depths()
    widths: list[int] = []
    attends: list[bool] = []
    depths: list[int] = []
    layers: list[int] = []
    fresh = True
    for i in range(1, blocks):
        base = f"input_blocks.{i}"
        if f"{base}.0.op.weight" in part.shapes:
            fresh = True
            continue
        width = part.get(f"{base}.0.in_layers.2.weight", 4)[0]
        depth = transformers.get(base, 0)
        if fresh:
            widths, attends = [*widths, width], [*attends, depth > 0]
            depths, layers = [*depths, max(1, depth)], [*layers, 0]
            fresh = False
        layers[-1] += 1
    if not widths:
        raise DamagedCheckpoint(f"is incomplete: {part.prefix}input_blocks.1 is missing")
    if max(depths) > MAX_DEPTH or max(layers) > MAX_PER_LEVEL:
        raise DamagedCheckpoint(
            f"is damaged: its UNet has {max(layers):,} blocks a level and {max(depths):,}"
            " transformer blocks in one"
        )
    if not attends[-1]:
        depths[-1] = max(1, transformers.get("middle_block", 1))
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    words = part.get("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)[1]
    config = {
        "sample_size": {"sd1": 64, "sd2": 64, "xl": 128}[family],
        "in_channels": part.get("input_blocks.0.0.weight", 4)[1],
        "out_channels": part.get("out.2.weight", 4)[0],
        "block_out_channels": widths,
        "down_block_types": down,
        "up_block_types": up,
        "layers_per_block": max(layers),
        "transformer_layers_per_block": depths,
        "cross_attention_dim": words,
        "attention_head_dim": 8 if family == "sd1" else [max(1, w // 64) for w in widths],
        "use_linear_projection": family != "sd1",
    }
    if family == "xl":
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": part.get("label_emb.0.0.weight", 2)[1],
        }
    return config


def vae_config(part: ComponentShapes, family: str) -> dict[str, Any]:
    """Derive the config.json of diffusers' AutoencoderKL from a VAE's tensor shapes.

    part: the shapes, with tensor names of CompVis' original layout. family: "sd1", "sd2" or "xl".
    Raises DamagedCheckpoint where tensors are missing.
    """
    levels = part.count("encoder.down.")
    widths = [part.get(f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)]
    return {
        "in_channels": part.get("encoder.conv_in.weight", 4)[1],
        "out_channels": part.get("decoder.conv_out.weight", 4)[0],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": part.count("encoder.down.0.block."),
        "latent_channels": part.get("post_quant_conv.weight", 4)[0],
        "sample_size": {"sd1": 512, "sd2": 768, "xl": 1024}[family],
        "scaling_factor": SCALING[family],
    }


def read_vae_file(shapes: Shapes, family: str) -> tuple[str | None, dict[str, Any]]:
    """Return (prefix, configuration) of a .safetensors file that holds a VAE and nothing else.

    prefix: what its tensor names begin with in CompVis' original layout, "" or
    "first_stage_model."; None where the file has diffusers' tensor names. configuration: for
    diffusers' AutoencoderKL. shapes: from tensor name to shape. family: "sd1", "sd2" or "xl", of
    the model that will use it; it decides the latents' scaling factor, which shapes do not tell.
    Raises DamagedCheckpoint where tensors are missing.
    """
    prefix = PREFIXES["vae"][family]
    for start in (prefix, ""):
        if f"{start}encoder.down.0.block.0.conv1.weight" in shapes:
            return start, vae_config(ComponentShapes(shapes, start), family)
    part = ComponentShapes(shapes, "")
    levels = part.count("encoder.down_blocks.")
    names = {f"encoder.down.{i}.block.0.conv1.weight": i for i in range(levels)}
    alias = {  # the tensors that `vae_config` reads, under their original names
        old: part.get(f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 4)
        for old, i in names.items()
    }
    for j in range(part.count("encoder.down_blocks.0.resnets.")):
        alias[f"encoder.down.0.block.{j}.norm1.weight"] = (1,)
    return None, vae_config(ComponentShapes(dict(shapes) | alias, ""), family)


def text_config(part: ComponentShapes, name: str, family: str) -> dict[str, Any]:
    """Derive the config.json of transformers' CLIP text model from its tensor shapes.

    part: the shapes; a prefix that ends with "text_model." means that the tensor names are CLIP's,
    any other that they are OpenCLIP's. name: "text_encoder" or "text_encoder_2". family: "sd1",
    "sd2" or "xl". Raises DamagedCheckpoint where tensors are missing.
    """
    if part.prefix.endswith("text_model."):
        vocabulary, width = part.get("embeddings.token_embedding.weight", 2)
        window = part.get("embeddings.position_embedding.weight", 2)[0]
        layers = part.count("encoder.layers.")
        inner = part.get("encoder.layers.0.mlp.fc1.weight", 2)[0]
        activation, projection = "quick_gelu", width
    else:
        vocabulary, width = part.get("token_embedding.weight", 2)
        window = part.get("positional_embedding", 2)[0]
        layers = part.count("transformer.resblocks.")
        inner = part.get("transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        activation, projection = "gelu", width
        if family == "sd2":
            layers -= 1  # SD 2.x uses the last layer but one, and diffusers drops the last
        else:
            projection = part.get("text_projection", 2)[1]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": window,
        "projection_dim": projection,
        "hidden_act": activation,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0 if activation == "gelu" else vocabulary - 1,
    }
