"""Load the networks of a training run from its folder.

The folder holds `tokenizer`, one subfolder of checkpoints per stage ("clip", "vae", "decoder",
"unet"), and `vae/final`, the autoencoder with normalised latents that the UNet is trained on.
Whatever a run lacks is read from the model folder --base, so that exported weights can be trained
further.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from ...disk import restore_folder
from ...errors import InputError
from ...loading.device import choose_device
from ..loop import load_ema, newest_checkpoint
from . import clip, tokenizer, unet
from .vocabulary import Vocabulary


class RunFolder:
    """The folder of a training run of the emoji model; its methods load what is trained so far.

    args: the parsed command line, of which `folder` (of the run), `base` (a model folder, for
    whatever the run lacks; may be None), `data` and `device` are used.
    """

    def __init__(self, args: argparse.Namespace):
        self.folder: Path = args.folder
        self.base: Path | None = args.base
        self.vocabulary = Vocabulary.from_packages(args.data)
        self.device = str(choose_device(args.device))

    def _find(self, own: Path, in_base: str) -> Path:
        restore_folder(own)
        if own.exists():
            return own
        if self.base is not None and (self.base / in_base).exists():
            return self.base / in_base
        raise InputError(f"{own} is not there: train that stage first, or pass --base FOLDER.")

    def tokenizer_folder(self) -> Path:
        """Return the folder of the tokenizer's files: in this run, else in the model folder `base`.

        Raises InputError if neither has one.
        """
        return self._find(self.folder / "tokenizer", "tokenizer")

    def load_clip(self) -> CLIPModel:
        """Load CLIP, both towers and projections, to train it further, use it or export it.

        Its EMA weights are taken from the run's newest checkpoint, else from the model folder
        `base`. Raises InputError if there is neither.
        """
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
        """Load the trained autoencoder, whose latents have mean 0 and deviation 1 in each channel.

        It is taken from the run's folder `vae/final`, else from the model folder `base`. decoder:
        if the run has trained the decoder further (the stage "decoder"), use that one. Raises
        InputError if there is no autoencoder.
        """
        folder = self._find(self.folder / "vae" / "final", "vae")
        model = AutoencoderKL.from_pretrained(folder, dtype=torch.float32)
        if decoder and newest_checkpoint(self.folder / "decoder"):
            load_ema(model, self.folder / "decoder")
        return model.eval()

    def load_unet(self) -> UNet2DConditionModel:
        """Load the UNet with the EMA weights of the run's newest checkpoint, else from `base`.

        `base` is the model folder for what the run lacks. Raises InputError if there is neither.
        """
        if newest_checkpoint(self.folder / "unet"):
            model = unet.build()
            load_ema(model, self.folder / "unet")
            return model
        if self.base is None:
            raise InputError(f"{self.folder / 'unet'} holds no checkpoint: train unet first.")
        return UNet2DConditionModel.from_pretrained(self.base / "unet", dtype=torch.float32)


def encoder_digest(model: AutoencoderKL) -> str:
    """Return 10 hex digits that identify the encoder of an autoencoder: its weights' SHA-256.

    A UNet is trained on the latents of one encoder, so a run stores the digest to notice another
    one. The weights are rounded to fp16, so that an exported encoder has the same digest.
    """
    digest = hashlib.sha256()
    for part in (model.encoder, model.quant_conv):
        for tensor in part.state_dict().values():
            digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:10]
