"""Write the trained networks as a model folder in diffusers' format, in fp16 safetensors files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from ...disk import write_folder
from ..loop import save_atomically
from .unet import make_scheduler
from .vocabulary import Vocabulary

SHARD = "8MB"
GENERATION = {
    "sampler": "euler_a",
    "schedule": "automatic",
    "steps": 20,
    "cfg": 2.5,
    "width": 128,
    "height": 128,
}


def split_towers(model: CLIPModel) -> tuple[CLIPTextModel, CLIPVisionModelWithProjection]:
    """Split CLIP into copies of its text tower and of its image tower, as two models.

    The text tower conditions the UNet; like the `text_encoder` of Stable Diffusion it has no
    projection. The image tower keeps its projection, for the evaluation.
    """
    text = CLIPTextModel(model.config.text_config)
    text.load_state_dict(model.text_model.state_dict())
    image = CLIPVisionModelWithProjection(model.config.vision_config)
    image.vision_model.load_state_dict(model.vision_model.state_dict())
    image.visual_projection.load_state_dict(model.visual_projection.state_dict())
    return text, image


def write_model(
    folder: Path,
    *,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    clip: CLIPModel,
    tokenizer_folder: Path,
    vocabulary: Vocabulary,
    prediction: str = "v_prediction",
) -> None:
    """Write the trained emoji model to `folder` in diffusers' format, in fp16, so it can be loaded.

    Besides networks, tokenizer and scheduler it writes vocabulary.json (the emoji that it knows)
    and generation.json (default sampler, steps, guidance and size), but no model card. prediction:
    what the UNet predicts, "v_prediction" or "epsilon". The folder is written whole or not at all;
    other files in it stay, and the networks may have been loaded from it. Raises InputError if it
    cannot be written.
    """
    text, image = split_towers(clip)
    parts = {"unet": unet, "vae": vae, "text_encoder": text, "clip/image_encoder": image}
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }

    def write(part: Path) -> None:
        for name, module in parts.items():
            half = module.to(torch.float16)
            half.save_pretrained(part / name, safe_serialization=True, max_shard_size=SHARD)
            module.to(torch.float32)
        projection = {"text_projection.weight": clip.text_projection.weight.half()}
        projection["logit_scale"] = clip.logit_scale
        save_atomically(projection, part / "clip" / "text_projection.safetensors", {})
        shutil.copytree(tokenizer_folder, part / "tokenizer")
        make_scheduler(prediction).save_pretrained(part / "scheduler")
        (part / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        (part / "generation.json").write_text(json.dumps(GENERATION, indent=2) + "\n")
        vocabulary.save(part / "vocabulary.json")
        for path in part.rglob("*"):
            if path.is_file():
                path.chmod(0o644)

    write_folder(folder, write, keep=True)
