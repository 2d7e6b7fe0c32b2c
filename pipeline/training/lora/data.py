"""Read the pictures and captions that a LoRA is trained on and encode them before training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...denoising.denoiser import AddedCond, added_cond_kwargs
from ...errors import InputError, short
from ...images.open import fit_image, open_picture, to_tensor
from ...latents import vae
from ...options import GenerateOptions
from ...prompt import resources
from ...prompt.encode import encode_prompts
from ...prompt.resources import PromptResources
from ...prompt.syntax import ParsedPrompt, parse
from ..emoji.vocabulary import COLOURS

if TYPE_CHECKING:
    from ...model import Models

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
ONE_PICTURE = (
    "One picture teaches that picture, not the character: give three or more, each different."
)


def pictures_in(folder: str | Path) -> list[Path]:
    """Return the picture files in `folder` to train a LoRA on, sorted by name; no subfolders.

    Raises InputError if `folder` is missing, cannot be read or holds no picture.
    """
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
    """One picture to train a LoRA on: RGB, scaled to the training size, with its caption."""

    picture: Image.Image
    caption: str


def read_examples(
    images: Sequence[str | Path | Image.Image], prompt: str, size: int
) -> tuple[list[Example], list[str]]:
    """Open the pictures to train a LoRA on; return (examples, notes).

    examples: each picture, fitted to `size` x `size` pixels, with its caption; notes: warnings, one
    sentence each, such as which pictures cannot be opened. images: paths or PIL pictures; prompt:
    their caption, unless a text file beside the picture (`zog.txt` for `zog.png`) has another.
    Raises InputError if no picture can be opened.
    """
    examples: list[Example] = []
    notes: list[str] = []
    for i, value in enumerate(images, 1):
        path = Path(value) if isinstance(value, (str, Path)) else None
        try:
            opened = open_picture(value, what="The picture" if path else f"Picture {i}")
            examples.append(
                Example(fit_image(opened.image, size, size), _read_caption(path) or prompt)
            )
            notes += opened.notes
        except InputError as error:
            notes.append(f"{error} It is left out.")
    if not examples:
        reason = f": {notes[0].removesuffix(' It is left out.')}" if notes else "."
        raise InputError(f"There is no picture to learn from{reason}")
    if len(examples) == 1:
        notes.append(ONE_PICTURE)
    return examples, notes


def _read_caption(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = path.with_suffix(".txt").read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return ""
    return " ".join(text.split())


def add_backgrounds(examples: Iterable[Example], prompt: str) -> list[Example]:
    """Return `examples` with " on a COLOUR background" added to captions, to train a LoRA well.

    For this project's own emoji model, whose training captions name the background: it would learn
    an unnamed colour as a part of the character. COLOUR is the name of the colour of the picture's
    border. A caption stays as it is if it differs from `prompt`, if `prompt` mentions a background,
    or if the border has many colours.
    """
    if "background" in prompt.lower():
        return list(examples)
    named = []
    for example in examples:
        colour = _background_colour(example.picture) if example.caption == prompt else None
        caption = f"{prompt} on a {colour} background" if colour else example.caption
        named.append(Example(example.picture, caption))
    return named


def _background_colour(picture: Image.Image) -> str | None:
    """Return the name ("red") of a picture's background colour for its caption; None if mixed.

    It is the colour of COLOURS nearest to the median of the 4-pixel border. Mixed: fewer than 80%
    of the border pixels are within 48 of that median (RGB 0..255, Euclidean).
    """
    pixels = np.asarray(picture, dtype=np.float32)
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[4:-4, 4:-4] = True
    edge = pixels[~inner]
    median = np.median(edge, axis=0)
    if np.mean(np.linalg.norm(edge - median, axis=1) < 48) < 0.8:
        return None
    return min(COLOURS, key=lambda c: float(np.linalg.norm(median - np.array(COLOURS[c][1]))))


def digest(examples: Iterable[Example]) -> str:
    """Return 10 hex digits that identify the training data: SHA-256 of all pixels and captions.

    File names do not count. A run stores the digest, so that it is not resumed with other pictures.
    """
    total = hashlib.sha256()
    for example in examples:
        total.update(example.picture.tobytes() + example.caption.encode("utf-8", "replace"))
    return total.hexdigest()[:10]


@dataclass(frozen=True)
class LoraDataset:
    """What a LoRA is trained on: N encoded pictures with captions, as tensors on the CPU.

    latents: (N, C, h, w), multiplied by the scaling factor; contexts: text embeddings (N, K, E);
    pooled: pooled text embeddings (N, P) for SD XL, else None; size: side of the pictures in
    pixels; classes: number of class pictures, which are the last of the N and show any dog, for
    example, where the others show my dog (DreamBooth's prior preservation); empty: (context (1, K,
    E), pooled (1, P) or None) of the empty caption, None if no caption is to be left empty.
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
    ) -> tuple[Tensor, Tensor, AddedCond]:
        """Return a random training batch on `device`: (latents, contexts, further UNet arguments).

        count: pictures of the character; if the dataset has class pictures, as many of these are
        added. empty_share: share (0 to 1) of captions replaced by the empty one, for
        classifier-free guidance. The further keyword arguments are SD XL's conditioning, {} for
        other models; they are float32, because bfloat16 would round SD XL's picture sizes.
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
    """Encode the training pictures with the model's VAE and their captions with its text encoders.

    models: the model that the LoRA is trained for; own: pictures of the character; classes:
    pictures of its class (any dog) for prior preservation, may be empty; size: their side in
    pixels; flip: also add a mirrored copy of each picture.
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
    """Encode captions of training pictures; return {caption: (context, pooled)} for the UNet.

    context: text embeddings (1, K, E), padded to the same K for all captions; pooled: pooled ones
    (1, P) for SD XL, else None. Both are float32 on the CPU. models: the model whose text encoders
    are used.
    """
    requests = {c: _resolve_caption(models, c) for c in sorted(captions)}

    def encode_one(caption: str, padded_to: ParsedPrompt) -> tuple[Tensor, Tensor | None]:
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


def _resolve_caption(models: Models, caption: str) -> PromptResources:
    """Parse a training caption like a prompt and load the textual inversions that it names.

    Returns the parsed text with these embeddings. Raises InputError if it contains <lora:...>,
    because a LoRA is trained without others.
    """
    request = resources.find_resources(
        models, models.resolve(GenerateOptions(prompt=caption, steps=1, seed=0))
    )
    if request.adapters:
        raise InputError("A LoRA learns on the bare model: take <lora:...> out of its prompt.")
    return request
