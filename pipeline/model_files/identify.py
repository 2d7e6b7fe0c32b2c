"""Identify what a .safetensors file holds by its tensors' names, shapes and metadata.

It can be a checkpoint, LoRA, textual inversion or autoencoder of Stable Diffusion. For some other
models that people have (Flux, ControlNet, ...) the result says what they are, for an error message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, short
from .ldm_configs import (
    ComponentShapes,
    DamagedCheckpoint,
    Shapes,
    text_config,
    unet_config,
    vae_config,
)
from .ldm_keys import PREFIXES
from .lora_keys import FAMILIES as BY_WIDTH
from .lora_keys import is_lora, lora_family
from .safetensors_header import SafetensorsHeader, read_header

FAMILIES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "xl": "SD XL"}  # from a family's key to its label
BY_LABEL = {label: key for key, label in FAMILIES.items()}
KINDS = {"checkpoint": "checkpoint", "lora": "LoRA", "embedding": "embedding", "vae": "VAE"}
CHANNELS = {  # from the UNet's number of input channels to the kind of model, none of them loaded
    5: "a depth-to-image model",
    7: "an upscaling model",
    8: "an image-editing model (InstructPix2Pix)",
}
OTHERS = (  # other files: (pattern that matches the beginning of a tensor's name, what it is)
    (r"(model\.diffusion_model\.)?(double_blocks|single_blocks)\.", "a Flux model"),
    (r"(model\.diffusion_model\.)?joint_blocks\.", "a Stable Diffusion 3 model"),
    (r"control_model\.|controlnet_|input_hint_block", "a ControlNet"),
    (r"(down|up)_blocks\.\d+\.(resnets|attentions)\.", "the UNet of a diffusers folder"),
    (r"text_model\.encoder\.layers\.", "a text encoder"),
    (r"(encoder|shared)\.(block|weight)", "a T5 text encoder"),
)
SCHEDULER = {  # the scheduler_config.json of Stable Diffusion, as it was trained
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
# From the width of a text encoder's vectors to the family's key.
WIDTHS = {width: BY_LABEL[label] for width, label in BY_WIDTH.items()}

# From ModelSpec's prediction_type to diffusers'.
PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
# Names of tensors that mark a checkpoint trained with EDM (Karras et al., arXiv 2206.00364).
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


@dataclass(frozen=True)
class FileIdentity:
    """What a .safetensors file holds, as its tensors' names and shapes tell.

    kind: "checkpoint", "lora", "embedding" or "vae"; "" for a file that cannot be used here. what:
    a description that follows "<file> is ", such as "a LoRA" or "a ControlNet". family: "sd1",
    "sd2", "xl", or "" where it is unknown. configs: of a checkpoint, from component name ("unet",
    "vae", "scheduler", ...) to its configuration as in a diffusers folder; without "vae" where the
    file has none. prediction: what the UNet predicts, "epsilon" or "v_prediction"; None where
    neither tensor names nor metadata tell.
    """

    kind: str
    what: str
    family: str = ""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    prediction: str | None = None


def inspect_file(path: str | os.PathLike) -> FileIdentity:
    """Tell what the .safetensors file `path` holds (a checkpoint, LoRA, ...), from its header.

    Raises InputError for a file of another format, a damaged file or an incomplete checkpoint.
    """
    return identify_file(Path(path), read_header(path))


def identify_file(path: Path, header: SafetensorsHeader) -> FileIdentity:
    """Tell what a .safetensors file holds (a checkpoint, LoRA, ...), from its header.

    path: the file, only named in errors. Raises InputError for a checkpoint that lacks tensors or
    has them in impossible shapes.
    """
    try:
        return identify(header.shapes(), header.metadata)
    except DamagedCheckpoint as fault:
        raise InputError(f"{short(path)} {fault}.") from None


def how_to_use(found: FileIdentity) -> str:
    """Return what to do with a file that is no checkpoint but was given as one, for an error.

    The text follows "<path> is <found.what>; ". For a LoRA it is "put it into the folder models and
    write <lora:its name:1> in the prompt.", for an unknown file "a checkpoint of ... is wanted."
    """
    known = " or ".join([", ".join(list(FAMILIES.values())[:-1]), list(FAMILIES.values())[-1]])
    return {
        "lora": "put it into the folder models and write <lora:its name:1> in the prompt.",
        "embedding": "put it into the folder models and write its name in the prompt.",
        "vae": "give it beside a checkpoint, as its autoencoder.",
    }.get(found.kind, f"a checkpoint of {known} is wanted.")


def identify(shapes: Shapes, metadata: Mapping[str, str] = {}) -> FileIdentity:
    """Tell what a .safetensors file holds (a checkpoint, LoRA, ...), from its tensors.

    shapes: from tensor name to shape. metadata: the file's; only `modelspec.prediction_type` of it
    is used, for a checkpoint (github.com/Stability-AI/ModelSpec). Raises DamagedCheckpoint for a
    checkpoint that lacks tensors or has them in impossible shapes.
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
    unet = ComponentShapes(shapes, prefix)
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
        configs["vae"] = vae_config(ComponentShapes(shapes, PREFIXES["vae"][family]), family)
    for name in ("text_encoder", "text_encoder_2"):
        if family in PREFIXES[name]:
            part = ComponentShapes(shapes, PREFIXES[name][family])
            configs[name] = text_config(part, name, family)
    prediction = PREDICTIONS.get(metadata.get("modelspec.prediction_type", ""))
    if "v_pred" in shapes:  # a tensor that marks v-prediction checkpoints of SD XL
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


def _family(unet: ComponentShapes) -> str:
    if "label_emb.0.0.weight" in unet.shapes:
        return "xl"
    return "sd2" if len(unet.shapes.get("middle_block.1.proj_in.weight", ())) == 2 else "sd1"


def _embedding(shapes: Shapes) -> FileIdentity | None:
    """Return a FileIdentity if a file with these tensors is a textual inversion, else None.

    A textual inversion holds vectors of a text encoder's width and nothing else; the width tells
    the family of models. shapes: from tensor name to shape.
    """
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
