"""CLIP's text and image encoder: embed sentences and pictures in one space and compare them.

Every Stable Diffusion folder has the text encoder. The embedded model also has the rest, in the
folder `clip`: image encoder, text projection and temperature. Radford et al., arXiv 2103.00020.
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

PROJECTION = Path("clip") / "text_projection.safetensors"
MAX_LOGIT_SCALE = 4.6052  # log 100, as in training


def has_clip(folder: Path) -> bool:
    """Return whether a model's folder has the image encoder and the projection, too."""
    return (folder / PROJECTION).is_file() and (folder / "clip" / "image_encoder").is_dir()


@dataclass(frozen=True)
class Clip:
    """CLIP on the CPU in float32, where it takes milliseconds. Safe to use from several threads.

    projection (E, hidden): from the text encoder's pooled state to the shared space. scale: 1 over
    the temperature; similarities are multiplied by it before the softmax.
    """

    tokenizer: Any
    text: Any
    image: Any
    projection: torch.Tensor
    scale: float
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def load(cls, folder: Path) -> Clip:
        """Load it from a model's folder in diffusers' format; InputError where it has none."""
        from safetensors.torch import load_file
        from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

        if not has_clip(folder):
            raise InputError(f"The model {folder.name} has no image tower of CLIP beside it.")
        options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
        options["dtype"] = torch.float32
        tensors = load_file(folder / PROJECTION)
        return cls(
            CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            CLIPTextModel.from_pretrained(folder / "text_encoder", **options).eval(),
            CLIPVisionModelWithProjection.from_pretrained(
                folder / "clip" / "image_encoder", **options
            ).eval(),
            tensors["text_projection.weight"].float(),
            float(tensors["logit_scale"].float().clamp(max=MAX_LOGIT_SCALE).exp()),
        )

    @property
    def width(self) -> int:
        """The size E of the shared space."""
        return self.projection.shape[0]

    def tokens(self, sentence: str) -> list[str]:
        """Return the tokens of a sentence with start and end, cut to the encoder's length."""
        with self._lock:
            ids = self._ids([sentence])[0].tolist()
            return [self.tokenizer.decode([number]).strip() for number in ids]

    @torch.no_grad()
    def context(self, sentence: str) -> torch.Tensor:
        """Return what the UNet attends to, the last hidden states (1, 77, hidden) of a sentence."""
        with self._lock:
            ids = self._ids([sentence], padding="max_length")
            return self.text(input_ids=ids).last_hidden_state

    @torch.no_grad()
    def embed_texts(self, sentences: list[str]) -> torch.Tensor:
        """Return unit vectors (N, E) of sentences in English or Chinese."""
        with self._lock:
            pooled = self.text(input_ids=self._ids(sentences)).pooler_output
        return F.normalize(pooled @ self.projection.T, dim=-1)

    @torch.no_grad()
    def embed_pictures(self, images: list[Image.Image]) -> torch.Tensor:
        """Return unit vectors (M, E) of pictures, each cropped to its central square."""
        from ..images.open import fit_image, to_tensor

        side = self.image.config.image_size
        pixels = torch.cat([to_tensor(fit_image(image, side, side)) for image in images])
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
    """Return p(picture j | text i), (N, M): the softmax of each row of scale * similarities."""
    return (scale * similarities).softmax(-1)


def contrastive_loss(similarities: torch.Tensor, scale: float) -> float:
    """Return CLIP's training loss of N pairs, similarities (N, N) with the pairs on the diagonal.

    The mean of two cross entropies: finding each text's picture, and each picture's text.
    """
    logits, target = scale * similarities, torch.arange(len(similarities))
    return float((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2)
