"""The two towers of CLIP: one reads sentences, one sees pictures, and what goes together is near.

A model's folder has the text tower as its text encoder; the embedded model's has the other half,
too, under `clip`: the image tower, the text's projection and the temperature that both learned.
Radford et al., arXiv 2103.00020.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from ..errors import InputError
from ..prompt.text import space_han

REST = Path("clip") / "text_projection.safetensors"
MOST_SCALE = 4.6052  # log 100, as in training


def has_towers(folder: Path) -> bool:
    """Whether a model's folder has both."""
    return (folder / REST).is_file() and (folder / "clip" / "image_encoder").is_dir()


@dataclass(frozen=True)
class Towers:
    """Both on the CPU in float32, where they take milliseconds; several threads may ask.

    projection (E, hidden) takes the text tower's state to the shared space. scale: what
    similarities are multiplied with before they become probabilities, one by the temperature.
    """

    tokenizer: Any
    text: Any
    image: Any
    projection: torch.Tensor
    scale: float
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def load(cls, folder: Path) -> Towers:
        """Those of a model's folder in diffusers' format; InputError where it has none."""
        from safetensors.torch import load_file
        from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

        if not has_towers(folder):
            raise InputError(f"The model {folder.name} has no image tower of CLIP beside it.")
        known = {"local_files_only": True, "dtype": torch.float32, "use_safetensors": True}
        rest = load_file(folder / REST)
        return cls(
            CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            CLIPTextModel.from_pretrained(folder / "text_encoder", **known).eval(),
            CLIPVisionModelWithProjection.from_pretrained(
                folder / "clip" / "image_encoder", **known
            ).eval(),
            rest["text_projection.weight"].float(),
            float(rest["logit_scale"].float().clamp(max=MOST_SCALE).exp()),
        )

    @property
    def width(self) -> int:
        """E, the numbers of a vector."""
        return self.projection.shape[0]

    def tokens(self, sentence: str) -> list[str]:
        """The pieces of a sentence, between start and end, at most as many as the tower reads."""
        with self._lock:
            ids = self._ids([sentence])[0].tolist()
            return [self.tokenizer.decode([number]).strip() for number in ids]

    @torch.no_grad()
    def context(self, sentence: str) -> torch.Tensor:
        """What the UNet hears of a sentence, (1, 77, hidden): the text tower's last states."""
        with self._lock:
            ids = self._ids([sentence], padding="max_length")
            return self.text(input_ids=ids).last_hidden_state

    @torch.no_grad()
    def texts(self, sentences: list[str]) -> torch.Tensor:
        """Unit vectors (N, E) of sentences in English or Chinese."""
        with self._lock:
            pooled = self.text(input_ids=self._ids(sentences)).pooler_output
        return F.normalize(pooled @ self.projection.T, dim=-1)

    @torch.no_grad()
    def pictures(self, images: list[Image.Image]) -> torch.Tensor:
        """Unit vectors (M, E) of pictures; what is not square is cut to its middle."""
        from ..images.open import fitted, to_tensor

        side = self.image.config.image_size
        pixels = torch.cat([to_tensor(fitted(image, side, side)) for image in images])
        with self._lock:
            return F.normalize(self.image(pixels * 2 - 1).image_embeds, dim=-1)

    def _ids(self, sentences: list[str], padding: str = "longest") -> torch.Tensor:
        return self.tokenizer(
            [space_han(sentence) for sentence in sentences],
            padding=padding,
            max_length=self.text.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).input_ids


def probabilities(similarities: torch.Tensor, scale: float) -> torch.Tensor:
    """For each text, how likely each picture is its own, (N, M): softmax along the row."""
    return (scale * similarities).softmax(-1)


def contrastive_loss(similarities: torch.Tensor, scale: float) -> float:
    """The loss CLIP was trained with, of pairs (N, N) whose partners stand on the diagonal.

    The mean cross entropy of finding each text's picture, and each picture's text.
    """
    logits, own = scale * similarities, torch.arange(len(similarities))
    return float((F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2)
