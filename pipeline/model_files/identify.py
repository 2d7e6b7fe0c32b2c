"""Identify a .safetensors file by its tensors' names and shapes alone.

A checkpoint's configuration is read off its shapes, so a file needs none beside it, and a file of
another size than the published ones works as well. What shapes cannot tell is the family's:
SD 1.x has 8 attention heads, SD 2.x and XL heads of 64; CLIP's heads are 64 wide.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, short
from .folder_checks import MAX_LAYERS
from .ldm_keys import PREFIXES
from .lora_keys import FAMILIES as BY_WIDTH
from .lora_keys import is_lora, lora_family
from .safetensors_header import SafetensorsHeader, read_header

FAMILIES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "xl": "SD XL"}
BY_LABEL = {label: key for key, label in FAMILIES.items()}
KINDS = {"checkpoint": "checkpoint", "lora": "LoRA", "embedding": "embedding", "vae": "VAE"}
CHANNELS = {  # of the UNet's input, where they are not the latents alone
    5: "a depth-to-image model",
    7: "an upscaling model",
    8: "an image-editing model (InstructPix2Pix)",
}
OTHERS = (  # what else people have: (a name's beginning or end, what it is)
    (r"(model\.diffusion_model\.)?(double_blocks|single_blocks)\.", "a Flux model"),
    (r"(model\.diffusion_model\.)?joint_blocks\.", "a Stable Diffusion 3 model"),
    (r"control_model\.|controlnet_|input_hint_block", "a ControlNet"),
    (r"(down|up)_blocks\.\d+\.(resnets|attentions)\.", "the UNet of a diffusers folder"),
    (r"text_model\.encoder\.layers\.", "a text encoder"),
    (r"(encoder|shared)\.(block|weight)", "a T5 text encoder"),
)
SCHEDULER = {  # how Stable Diffusion was trained
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
SCALING = {"sd1": 0.18215, "sd2": 0.18215, "xl": 0.13025}  # of the latents
WIDTHS = {width: BY_LABEL[label] for width, label in BY_WIDTH.items()}

PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
MAX_DEPTH, MAX_PER_LEVEL = 32, 8  # SD XL has 10 transformer blocks in one, and 2 a level

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class FileIdentity:
    """What a file is: kind is one of KINDS, or "" where nothing can use it; `what` is in words.

    family: a key of FAMILIES, or "". configs: of a checkpoint's parts, as diffusers and
    transformers have them; no "vae" where the file has none. prediction: epsilon, v_prediction, or
    None where neither names nor metadata tell.
    """

    kind: str
    what: str
    family: str = ""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    prediction: str | None = None


class DamagedCheckpoint(Exception):
    """A checkpoint lacks something; the message follows the file's name in a sentence."""


def inspect_file(path: str | os.PathLike) -> FileIdentity:
    """Return what a .safetensors file is; InputError for any other or a damaged file."""
    return identify_file(Path(path), read_header(path))


def identify_file(path: Path, header: SafetensorsHeader) -> FileIdentity:
    """Return what the file `path` with this header is; InputError for a damaged checkpoint."""
    try:
        return identify(header.shapes(), header.metadata)
    except DamagedCheckpoint as fault:
        raise InputError(f"{short(path)} {fault}.") from None


def how_to_use(found: FileIdentity) -> str:
    """Return how a sentence ends that says what a file is where a checkpoint was wanted."""
    known = " or ".join([", ".join(list(FAMILIES.values())[:-1]), list(FAMILIES.values())[-1]])
    return {
        "lora": "put it into the folder models and write <lora:its name:1> in the prompt.",
        "embedding": "put it into the folder models and write its name in the prompt.",
        "vae": "give it beside a checkpoint, as its autoencoder.",
    }.get(found.kind, f"a checkpoint of {known} is wanted.")


def identify(shapes: Shapes, metadata: Mapping[str, str] = {}) -> FileIdentity:
    """Return what a file with these tensors is; DamagedCheckpoint where something is missing.

    metadata: the file's own, of which ModelSpec's `modelspec.prediction_type` is read
    (github.com/Stability-AI/ModelSpec).
    """
    if any(k.startswith("model.diffusion_model.input_blocks.") for k in shapes):
        return _checkpoint(shapes, metadata)
    if is_lora(shapes):
        made_for = lora_family({name: {"shape": shape} for name, shape in shapes.items()})
        return FileIdentity("lora", "a LoRA", BY_LABEL.get(made_for, ""))
    if {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= shapes.keys():
        return FileIdentity("vae", "an autoencoder")
    if "first_stage_model.decoder.conv_in.weight" in shapes:
        return FileIdentity("vae", "an autoencoder")
    embedding = _embedding(shapes)
    if embedding:
        return embedding
    for pattern, what in OTHERS:
        if any(re.match(pattern, k) for k in shapes):
            return FileIdentity("", what)
    return FileIdentity("", "nothing of Stable Diffusion")


def _checkpoint(shapes: Shapes, metadata: Mapping[str, str]) -> FileIdentity:
    prefix = PREFIXES["unet"]["sd1"]
    unet = _ComponentShapes(shapes, prefix)
    family = _family(unet)
    if family == "xl" and unet.get("label_emb.0.0.weight", 2)[1] == 2560:
        return FileIdentity("", "a Stable Diffusion XL refiner, which draws nothing by itself")
    if any(k in shapes for k in EDM) or metadata.get("modelspec.prediction_type") == "edm":
        return FileIdentity("", "an EDM checkpoint, whose noise levels are not Stable Diffusion's")
    config = unet_config(unet, family)
    latents, masked = config["out_channels"], 2 * config["out_channels"] + 1
    if config["in_channels"] not in (latents, masked):
        what = CHANNELS.get(config["in_channels"], f"of {config['in_channels']} input channels")
        name = FAMILIES[family]
        return FileIdentity("", f"{what} of {name}, which draws from more than words")
    configs = {"unet": config}
    if f"{PREFIXES['vae'][family]}decoder.conv_in.weight" in shapes:
        configs["vae"] = vae_config(_ComponentShapes(shapes, PREFIXES["vae"][family]), family)
    for name in ("text_encoder", "text_encoder_2"):
        if family in PREFIXES[name]:
            part = _ComponentShapes(shapes, PREFIXES[name][family])
            configs[name] = text_config(part, name, family)
    prediction = PREDICTIONS.get(metadata.get("modelspec.prediction_type", ""))
    if "v_pred" in shapes:  # a mark that v-prediction checkpoints of SD XL carry
        prediction = "v_prediction"
    elif family != "sd2":
        prediction = prediction or "epsilon"
    scheduler = dict(SCHEDULER)
    if family == "xl":
        scheduler["timestep_spacing"] = "leading"
    if "ztsnr" in shapes:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    configs["scheduler"] = scheduler
    kind = "inpainting checkpoint" if config["in_channels"] == masked else "checkpoint"
    return FileIdentity("checkpoint", f"a {FAMILIES[family]} {kind}", family, configs, prediction)


class _ComponentShapes:
    """The shapes of one component, by name without its prefix."""

    def __init__(self, shapes: Shapes, prefix: str):
        self.prefix = prefix
        self.shapes = {k[len(prefix) :]: v for k, v in shapes.items() if k.startswith(prefix)}

    def get(self, name: str, sizes: int) -> tuple[int, ...]:
        """Return the shape of `name`, which must have `sizes` dimensions and none of them empty."""
        shape = self.shapes.get(name)
        if shape is None:
            raise DamagedCheckpoint(f"is incomplete: {short(self.prefix + name)} is missing")
        if len(shape) != sizes or not all(shape):
            raise DamagedCheckpoint(
                f"is damaged: {short(self.prefix + name)} has the shape {short(shape)}"
            )
        return tuple(shape)

    def count(self, start: str) -> int:
        """Return how many blocks are numbered 0, 1, ... after `start`."""
        pattern = re.compile(re.escape(start) + r"(\d{1,4})\.")
        numbers = {int(m[1]) for k in self.shapes if (m := pattern.match(k))}
        missing = min(set(range(len(numbers))) - numbers, default=None)
        if missing is not None:
            raise DamagedCheckpoint(f"is incomplete: {self.prefix}{start}{missing} is missing")
        if len(numbers) > MAX_LAYERS:
            raise DamagedCheckpoint(f"is damaged: it has {len(numbers):,} of {self.prefix}{start}")
        return len(numbers)

    def depths(self) -> dict[str, int]:
        """Return the number of transformer blocks in each block of the UNet that has some."""
        found: dict[str, set[str]] = {}
        for key in self.shapes:
            match = re.match(r"(\w+?(?:\.\d+)?)\.1\.transformer_blocks\.(\d{1,3})\.", key)
            if match:
                found.setdefault(match[1], set()).add(match[2])
        return {block: len(numbers) for block, numbers in found.items()}


def _family(unet: _ComponentShapes) -> str:
    if "label_emb.0.0.weight" in unet.shapes:
        return "xl"
    return "sd2" if len(unet.shapes.get("middle_block.1.proj_in.weight", ())) == 2 else "sd1"


def unet_config(part: _ComponentShapes, family: str) -> dict[str, Any]:
    """Return the configuration of UNet2DConditionModel that these shapes have."""
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


def vae_config(part: _ComponentShapes, family: str) -> dict[str, Any]:
    """Return the configuration of AutoencoderKL from a file in the original layout."""
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


def vae_file(shapes: Shapes, family: str) -> tuple[str | None, dict[str, Any]]:
    """Return (prefix, configuration) of a file that is an autoencoder alone, for `family`.

    prefix: of its names in the original layout; None where they are diffusers' names.
    """
    prefix = PREFIXES["vae"][family]
    for start in (prefix, ""):
        if f"{start}encoder.down.0.block.0.conv1.weight" in shapes:
            return start, vae_config(_ComponentShapes(shapes, start), family)
    part = _ComponentShapes(shapes, "")
    levels = part.count("encoder.down_blocks.")
    names = {f"encoder.down.{i}.block.0.conv1.weight": i for i in range(levels)}
    alias = {  # what `vae_config` looks at, in the original names
        old: part.get(f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 4)
        for old, i in names.items()
    }
    for j in range(part.count("encoder.down_blocks.0.resnets.")):
        alias[f"encoder.down.0.block.{j}.norm1.weight"] = (1,)
    return None, vae_config(_ComponentShapes(dict(shapes) | alias, ""), family)


def text_config(part: _ComponentShapes, name: str, family: str) -> dict[str, Any]:
    """Return the configuration of the text encoder `name`: CLIP ViT-L's kind or OpenCLIP's."""
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
            layers -= 1  # it was trained on the last but one
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


def _embedding(shapes: Shapes) -> FileIdentity | None:
    """Textual inversion: a few vectors of a text encoder's width and nothing else."""
    if {"clip_l", "clip_g"} <= shapes.keys():
        return FileIdentity("embedding", "a textual inversion", "xl")
    rows = [s for s in shapes.values() if len(s) in (1, 2) and s]
    if not 1 <= len(shapes) <= 2 or len(rows) != len(shapes):
        return None
    if "emb_params" not in shapes and len(shapes) > 1:
        return None
    width = shapes.get("emb_params", rows[0])[-1]
    known = "emb_params" in shapes or any(s[-1] in WIDTHS for s in rows)
    return (
        FileIdentity("embedding", "a textual inversion", WIDTHS.get(width, "")) if known else None
    )
