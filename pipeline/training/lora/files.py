"""Write a trained LoRA to a safetensors file, with tensor names as in peft or in kohya's scripts.

AUTOMATIC1111 and ComfyUI read kohya's names, diffusers reads peft's. Both files hold the same
matrices, so either gives the same picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor

from ... import disk
from ...lora.reading import PEFT
from ...model_files import ldm_keys

if TYPE_CHECKING:
    from ...model import Models

Matrices = Mapping[str, tuple[Tensor, Tensor]]  # module path in the UNet -> (down, up)
FileContent = tuple[dict[str, Tensor], dict[str, str]]  # tensors, metadata
# Model family -> its name in kohya-ss/sd-scripts, its name in Stability-AI/ModelSpec.
FAMILIES = {
    "sd1": ("sd_v1", "stable-diffusion-v1/lora"),
    "sd2": ("sd_v2", "stable-diffusion-v2/lora"),
    "xl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
}


def to_peft(matrices: Matrices, alpha: float, config: Mapping[str, Any]) -> FileContent:
    """Return (tensors, metadata) of a LoRA file as diffusers' `save_lora_weights` writes it.

    matrices: {module path in the UNet: (down, up)}; alpha: the LoRA's output is multiplied by alpha
    / rank; config: unused, here for the same signature as `to_kohya`.
    """
    tensors = {}
    for path, (down, up) in matrices.items():
        tensors[f"unet.{path}.lora_A.weight"] = down
        tensors[f"unet.{path}.lora_B.weight"] = up
    rank = len(next(iter(matrices.values()))[0])
    adapter: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "target_modules": sorted(matrices)}
    adapter |= {"peft_type": "LORA", "lora_dropout": 0.0, "bias": "none", "use_rslora": False}
    return tensors, {PEFT: json.dumps({f"unet.{k}": v for k, v in adapter.items()})}


def to_kohya(matrices: Matrices, alpha: float, config: Mapping[str, Any]) -> FileContent:
    """Return (tensors, metadata) of a LoRA file as kohya-ss/sd-scripts writes it.

    matrices: {module path in the UNet: (down, up)}; alpha: the LoRA's output is multiplied by alpha
    / rank; config: the UNet's config, which tells whether it is SD XL. For SD XL such files use the
    layer names of Stability AI's original repository ("input_blocks..."), for other models
    diffusers'.
    """
    old = ldm_keys.unet_names(config) if config.get("addition_embed_type") == "text_time" else {}
    tensors = {}
    for path, (down, up) in matrices.items():
        name = "lora_unet_" + old.get(path, path).replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = up
        tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    return tensors, {}


NAMINGS: dict[str, Callable[[Matrices, float, Mapping[str, Any]], FileContent]] = {
    "peft": to_peft,
    "kohya": to_kohya,
}


def write(
    path: Path,
    matrices: Matrices,
    alpha: float,
    config: Mapping[str, Any],
    naming: str,
    metadata: Mapping[str, str],
) -> Path:
    """Write a trained LoRA to the safetensors file `path` in fp16, atomically, and return `path`.

    matrices: {module path in the UNet: (down, up)}; alpha: the LoRA's output is multiplied by alpha
    / rank; config: the UNet's config; naming: of the tensors, "peft" (for diffusers) or "kohya"
    (for AUTOMATIC1111 and ComfyUI); metadata: further fields of the file's header. Raises
    InputError if the file cannot be written; an old file at `path` then stays.
    """
    half = {p: (down.half(), up.half()) for p, (down, up) in matrices.items()}
    tensors, more = NAMINGS[naming](half, alpha, config)
    header = {"format": "pt", **metadata, **more}
    disk.make_folder(path.parent)
    return disk.write_file(path, lambda part: part.write_bytes(save(tensors, header)), durable=True)


def build_metadata(models: Models, **facts: Any) -> dict[str, str]:
    """Return the header metadata of a LoRA file, with the keys that AUTOMATIC1111 and ComfyUI show.

    models: the base model. facts, all required: name, prompt, rank, alpha, steps, rate (learning
    rate), batch, size (pixels), pictures (their number), seed.
    """
    version, architecture = FAMILIES[models.family]
    if models.vocabulary is not None:  # a small model, whatever architecture it resembles
        version, architecture = models.name, f"{models.name}/lora"
    prompt, count = facts["prompt"], facts["pictures"]
    values = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": facts["rank"],
        "ss_network_alpha": facts["alpha"],
        "ss_base_model_version": version,
        "ss_v2": models.family == "sd2",
        "ss_sd_model_name": models.name,
        "ss_sd_model_hash": models.hash,
        "ss_output_name": facts["name"],
        "ss_steps": facts["steps"],
        "ss_learning_rate": facts["rate"],
        "ss_batch_size_per_device": facts["batch"],
        "ss_num_train_images": count,
        "ss_resolution": f"({facts['size']}, {facts['size']})",
        "ss_seed": facts["seed"],
        "ss_tag_frequency": json.dumps({facts["name"]: {prompt: count}}),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture,
        "modelspec.title": facts["name"],
        "modelspec.trigger_phrase": prompt,
        "modelspec.resolution": f"{facts['size']}x{facts['size']}",
    }
    return {k: str(v) for k, v in values.items()}
