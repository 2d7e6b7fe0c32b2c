"""The training data of a LoRA: pictures and captions, as latents and text embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...denoising.denoiser import added_cond_kwargs
from ...errors import InputError, short
from ...images.open import fit_image, open_picture, to_tensor
from ...latents import vae
from ...options import GenerateOptions
from ...prompt import resources
from ...prompt.encode import encode_prompts
from ...prompt.syntax import parse
from ..emoji.vocabulary import COLOURS

if TYPE_CHECKING:
    from ...model import Models

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
ONE_PICTURE = (
    "One picture teaches that picture, not the character: give three or more, each different."
)


def pictures_in(folder: str | Path) -> list[Path]:
    """Return the picture files of `folder`, sorted by name. InputError where there is none."""
    folder = Path(folder)
    try:
        if not folder.is_dir():
            raise InputError(f"There is no folder {short(folder)}: name one that holds pictures.")
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"The folder {short(folder)} cannot be read: {reason}.") from None
    if not paths:
        raise InputError(
            f"The folder {short(folder)} holds no picture; put three or more of the character"
            " into it, as .png, .jpg or .webp files."
        )
    return paths


@dataclass(frozen=True)
class Example:
    """A picture of the training size and its caption."""

    picture: Image.Image
    caption: str


def read_examples(images: Sequence[Any], prompt: str, size: int) -> tuple[list[Example], list[str]]:
    """Return the pictures that can be opened, and a sentence for each that cannot.

    images: paths or PIL pictures. A text file beside a picture, `zog.txt` for `zog.png`, is its
    caption instead of `prompt`. InputError where none can be opened.
    """
    found: list[Example] = []
    notes: list[str] = []
    for i, value in enumerate(images, 1):
        path = Path(value) if isinstance(value, (str, Path)) else None
        try:
            opened = open_picture(value, what="The picture" if path else f"Picture {i}")
            found.append(
                Example(fit_image(opened.image, size, size), _read_caption(path) or prompt)
            )
            notes += opened.notes
        except InputError as error:
            notes.append(f"{error} It is left out.")
    if not found:
        reason = f": {notes[0].removesuffix(' It is left out.')}" if notes else "."
        raise InputError(f"There is no picture to learn from{reason}")
    if len(found) == 1:
        notes.append(ONE_PICTURE)
    return found, notes


def _read_caption(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = path.with_suffix(".txt").read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return ""
    return " ".join(text.split())


def add_backgrounds(found: Iterable[Example], prompt: str) -> list[Example]:
    """Add the colour of the background to each caption that is `prompt` alone.

    For a model whose captions all named that colour: it would learn a colour that the caption does
    not name as a part of the character.
    """
    if "background" in prompt.lower():
        return list(found)
    named = []
    for example in found:
        colour = _background_colour(example.picture) if example.caption == prompt else None
        caption = f"{prompt} on a {colour} background" if colour else example.caption
        named.append(Example(example.picture, caption))
    return named


def _background_colour(picture: Image.Image) -> str | None:
    """Return the named colour of the outermost 4 pixels; None where they have many colours."""
    pixels = np.asarray(picture, dtype=np.float32)
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[4:-4, 4:-4] = True
    edge = pixels[~inner]
    median = np.median(edge, axis=0)
    if np.mean(np.linalg.norm(edge - median, axis=1) < 48) < 0.8:
        return None
    return min(COLOURS, key=lambda c: float(np.linalg.norm(median - np.array(COLOURS[c][1]))))


def digest(found: Iterable[Example]) -> str:
    """Return a digest of the pictures and captions, whatever their files are called."""
    total = hashlib.sha256()
    for example in found:
        total.update(example.picture.tobytes() + example.caption.encode("utf-8", "replace"))
    return total.hexdigest()[:10]


@dataclass(frozen=True)
class LoraDataset:
    """The encoded training data.

    latents: (N, C, h, w), scaled; contexts: (N, K, E); pooled: (N, P) for SD XL, else None; size:
    side of the pictures in pixels; classes: how many of the last rows are pictures of the class,
    for prior preservation; empty: context (1, K, E) and pooled (1, P) of the empty caption.
    """

    latents: Tensor
    contexts: Tensor
    pooled: Tensor | None
    size: int
    classes: int = 0
    empty: tuple[Tensor, Tensor | None] | None = None

    def batch(
        self,
        count: int,
        generator: torch.Generator,
        device: torch.device,
        empty_share: float = 0.0,
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Return latents, contexts and SD XL's further arguments of the UNet, on `device`.

        count: pictures of the character, and as many of the class where there are any; empty_share:
        of the captions left empty, for classifier-free guidance. float32, because bfloat16 would
        round SD XL's sizes.
        """
        own = len(self.latents) - self.classes
        rows = torch.randint(own, (count,), generator=generator)
        if self.classes:
            class_rows = own + torch.randint(self.classes, (count,), generator=generator)
            rows = torch.cat([rows, class_rows])
        contexts = self.contexts[rows]
        pooled = None if self.pooled is None else self.pooled[rows]
        no_caption = torch.rand(len(rows), generator=generator) < empty_share
        if no_caption.any():
            assert self.empty is not None
            context, empty_pooled = self.empty
            contexts[no_caption] = context
            if pooled is not None and empty_pooled is not None:
                pooled[no_caption] = empty_pooled
        more = added_cond_kwargs(pooled, self.size, self.size, device, torch.float32)
        return self.latents[rows].to(device), contexts.to(device), more


def encode_dataset(
    models: Models, own: Sequence[Example], classes: Sequence[Example], size: int, flip: bool
) -> LoraDataset:
    """Encode the pictures with the autoencoder and the captions with the text encoders of `models`.

    own: of the character; classes: of its class; flip: add each picture mirrored.
    """
    groups = [list(own), list(classes)]
    if flip:
        groups = [g + [Example(ImageOps.mirror(e.picture), e.caption) for e in g] for g in groups]
    rows = groups[0] + groups[1]
    latents = []
    for example in rows:
        with models.lock:
            latents.append(vae.encode(models.vae, to_tensor(example.picture), models.device))
    embeddings = encode_captions(models, {"", *(e.caption for e in rows)})
    contexts = torch.cat([embeddings[e.caption][0] for e in rows])
    pooled_rows = [p for e in rows if (p := embeddings[e.caption][1]) is not None]
    pooled = torch.cat(pooled_rows) if pooled_rows else None
    return LoraDataset(torch.cat(latents), contexts, pooled, size, len(groups[1]), embeddings[""])


def encode_captions(
    models: Models, captions: Iterable[str]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return (context (1, K, E), pooled (1, P) or None) of each caption, float32 on the CPU.

    K is the same for all: shorter captions are padded to the longest.
    """
    requests = {c: _resolve_caption(models, c) for c in sorted(captions)}

    def encode_one(caption: str, padded_to: Any) -> tuple[Tensor, Tensor | None]:
        request = requests[caption]
        with models.lock:
            models.adapters.install(())
            encoded, _, _ = encode_prompts(
                models.text, request.prompt, padded_to, embeddings=request.embeddings
            )
        context, pooled, _ = encoded.at(0)
        return context.float().cpu(), None if pooled is None else pooled.float().cpu()

    single = {c: encode_one(c, parse("", 1)) for c in requests}
    longest = max(single, key=lambda c: single[c][0].shape[1])
    keys = single[longest][0].shape[1]
    return {
        c: row if row[0].shape[1] == keys else encode_one(c, requests[longest].prompt)
        for c, row in single.items()
    }


def _resolve_caption(models: Models, caption: str) -> Any:
    """Parse a caption as a prompt of `models`. InputError where it asks for a LoRA."""
    request = resources.find_resources(
        models, models.resolve(GenerateOptions(prompt=caption, steps=1, seed=0))
    )
    if request.adapters:
        raise InputError("A LoRA learns on the bare model: take <lora:...> out of its prompt.")
    return request
