"""A run's folder: the tokenizer, one sub-folder of checkpoints per stage, and `vae/final`.

`vae/final` is the autoencoder with normalised latents that the UNet is trained on. What a run lacks
is read from `--base`, a model folder, so that a UNet can be trained further from exported weights.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from ...errors import InputError
from ...loading.device import choose_device
from ..loop import load_ema, newest_checkpoint
from . import clip, tokenizer, unet
from .vocabulary import Vocabulary


class RunFolder:
    """The networks of a run, each read when its method is called."""

    def __init__(self, args: argparse.Namespace):
        self.folder: Path = args.folder
        self.base: Path | None = args.base
        self.vocabulary = Vocabulary.from_packages(args.data)
        self.device = str(choose_device(args.device))

    def _find(self, own: Path, in_base: str) -> Path:
        if own.exists():
            return own
        if self.base is not None and (self.base / in_base).exists():
            return self.base / in_base
        raise InputError(f"{own} is not there: train that stage first, or pass --base FOLDER.")

    def tokenizer_folder(self) -> Path:
        """Return the folder of the tokenizer."""
        return self._find(self.folder / "tokenizer", "tokenizer")

    def load_clip(self) -> CLIPModel:
        """Load both towers and their projections."""
        model = clip.build(tokenizer.load(self.tokenizer_folder()))
        if newest_checkpoint(self.folder / "clip"):
            load_ema(model, self.folder / "clip")
            return model
        if self.base is None:
            raise InputError(f"{self.folder / 'clip'} holds no checkpoint: train clip first.")
        text = CLIPTextModel.from_pretrained(self.base / "text_encoder", dtype=torch.float32)
        model.text_model.load_state_dict(text.state_dict())
        image = CLIPVisionModelWithProjection.from_pretrained(
            self.base / "clip" / "image_encoder", dtype=torch.float32
        )
        model.vision_model.load_state_dict(image.vision_model.state_dict())
        model.visual_projection.load_state_dict(image.visual_projection.state_dict())
        rest = load_file(self.base / "clip" / "text_projection.safetensors")
        model.text_projection.weight.data.copy_(rest["text_projection.weight"])
        model.logit_scale.data.copy_(rest["logit_scale"])
        return model

    def load_vae(self, *, decoder: bool = True) -> AutoencoderKL:
        """Load the autoencoder with normalised latents.

        decoder: with the weights of the stage `decoder`, where that was trained.
        """
        folder = self._find(self.folder / "vae" / "final", "vae")
        model = AutoencoderKL.from_pretrained(folder, dtype=torch.float32)
        if decoder and newest_checkpoint(self.folder / "decoder"):
            load_ema(model, self.folder / "decoder")
        return model.eval()

    def load_unet(self) -> UNet2DConditionModel:
        """Load the UNet."""
        if newest_checkpoint(self.folder / "unet"):
            model = unet.build()
            load_ema(model, self.folder / "unet")
            return model
        if self.base is None:
            raise InputError(f"{self.folder / 'unet'} holds no checkpoint: train unet first.")
        return UNet2DConditionModel.from_pretrained(self.base / "unet", dtype=torch.float32)


def encoder_digest(model: AutoencoderKL) -> str:
    """Return a digest of the encoder, on whose latents a UNet depends, without the decoder."""
    digest = hashlib.sha256()
    for part in (model.encoder, model.quant_conv):
        for tensor in part.state_dict().values():
            digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:10]
