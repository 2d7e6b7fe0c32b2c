"""CLIP: embed sentences and pictures as vectors in one space and compare them.

Radford et al., arXiv 2103.00020. Every Stable Diffusion folder has CLIP's text encoder. The model
that comes with this program also has the rest, in its folder `clip`: the image encoder, the text
projection and the temperature.
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
    """Return whether a model's folder has CLIP's image encoder and text projection.

    These are in its subfolder `clip`. They are needed to compare pictures with sentences.
    """
    return (folder / PROJECTION).is_file() and (folder / "clip" / "image_encoder").is_dir()


@dataclass(frozen=True)
class Clip:
    """A CLIP model on the CPU in fp32, where a call takes milliseconds; safe for several threads.

    tokenizer   transformers' CLIPTokenizer
    text        transformers' CLIPTextModel
    image       transformers' CLIPVisionModelWithProjection
    projection  (E, hidden): maps the text encoder's pooled state to the shared space of size E
    scale       1 / temperature: similarities are multiplied by it before the softmax
    """

    tokenizer: Any
    text: Any
    image: Any
    projection: torch.Tensor
    scale: float
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def load(cls, folder: Path) -> Clip:
        """Load CLIP from a model's folder in diffusers' format.

        Raises InputError if the folder has no image encoder in its subfolder `clip`.
        """
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
        """The size E of the vectors that sentences and pictures are embedded as."""
        return self.projection.shape[0]

    def tokens(self, sentence: str) -> list[str]:
        """Return the tokens of a sentence as text, with the start and end tokens.

        A longer sentence is cut to the length of the text encoder, 77 tokens.
        """
        with self._lock:
            ids = self._ids([sentence])[0].tolist()
            return [self.tokenizer.decode([number]).strip() for number in ids]

    @torch.no_grad()
    def context(self, sentence: str) -> torch.Tensor:
        """Return the text encoder's last hidden states (1, 77, hidden) of a sentence.

        They are the context that the UNet's cross attention uses.
        """
        with self._lock:
            ids = self._ids([sentence], padding="max_length")
            return self.text(input_ids=ids).last_hidden_state

    @torch.no_grad()
    def embed_texts(self, sentences: list[str]) -> torch.Tensor:
        """Embed N sentences in English or Chinese; return vectors (N, E) of length 1."""
        with self._lock:
            pooled = self.text(input_ids=self._ids(sentences)).pooler_output
        return F.normalize(pooled @ self.projection.T, dim=-1)

    @torch.no_grad()
    def embed_pictures(self, images: list[Image.Image]) -> torch.Tensor:
        """Embed M pictures, cropped to their central square; return vectors (M, E) of length 1."""
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
    """Return the probability (N, M) of each of M pictures for each of N texts, as CLIP sees it.

    It is the softmax over each row of scale * similarities. similarities (N, M): dot products of
    text and picture vectors. scale: 1 / temperature.
    """
    return (scale * similarities).softmax(-1)


def contrastive_loss(similarities: torch.Tensor, scale: float) -> float:
    """Return CLIP's training loss for a batch of N pairs of text and picture.

    It is the mean of two cross entropies: that of finding the picture of each text, and that of
    finding the text of each picture. similarities (N, N): dot products of the text vectors (rows)
    and picture vectors (columns), with the pairs on the diagonal. scale: 1 / temperature, by which
    they are multiplied.
    """
    logits, target = scale * similarities, torch.arange(len(similarities))
    return float((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2)
