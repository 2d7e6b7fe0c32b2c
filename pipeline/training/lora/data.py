"""What a LoRA learns from: pictures and their captions, as latents and as the UNet hears them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...denoising.denoiser import added_cond_kwargs
from ...errors import InputError, short
from ...images.open import fitted, open_picture, to_tensor
from ...latents import vae
from ...options import GenerateOptions
from ...prompt import resources
from ...prompt.encode import encode_prompts
from ...prompt.syntax import parse
from ..emoji.scenes import COLOURS

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
FEW = "One picture teaches that picture, not the character: give three or more, each different."


def pictures_in(folder: str | Path) -> list[Path]:
    """The picture files of `folder` by name; InputError where there is none."""
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
    """A picture of the training size and what it is called."""

    picture: Image.Image
    caption: str


def examples(images: Sequence, prompt: str, size: int) -> tuple[list[Example], list[str]]:
    """The pictures that can be opened, and a sentence for each that cannot.

    images: paths or PIL pictures. A text file beside a picture, `zog.txt` for `zog.png`, is its
    caption instead of `prompt`. InputError where not one can be opened.
    """
    found, notes = [], []
    for i, value in enumerate(images, 1):
        path = Path(value) if isinstance(value, (str, Path)) else None
        try:
            opened = open_picture(value, what="The picture" if path else f"Picture {i}")
            found.append(Example(fitted(opened.image, size, size), _caption(path) or prompt))
            notes += opened.notes
        except InputError as error:
            notes.append(f"{error} It is left out.")
    if not found:
        said = f": {notes[0].removesuffix(' It is left out.')}" if notes else "."
        raise InputError(f"There is no picture to learn from{said}")
    if len(found) == 1:
        notes.append(FEW)
    return found, notes


def _caption(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = path.with_suffix(".txt").read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return ""
    return " ".join(text.split())


def with_backgrounds(found: Iterable[Example], prompt: str) -> list[Example]:
    """Examples whose caption, where it is `prompt` alone, also names the colour of the background.

    For a model that learned every picture with that colour in its caption: it would take a colour
    that it does not hear for a part of the character.
    """
    if "background" in prompt.lower():
        return list(found)
    named = []
    for example in found:
        colour = _background(example.picture) if example.caption == prompt else None
        words = f"{prompt} on a {colour} background" if colour else example.caption
        named.append(Example(example.picture, words))
    return named


def _background(picture: Image.Image) -> str | None:
    """The named colour of most of the outermost 4 pixels; None where they have many colours."""
    pixels = np.asarray(picture, dtype=np.float32)
    inside = np.zeros(pixels.shape[:2], dtype=bool)
    inside[4:-4, 4:-4] = True
    edge = pixels[~inside]
    median = np.median(edge, axis=0)
    if np.mean(np.linalg.norm(edge - median, axis=1) < 48) < 0.8:
        return None
    return min(COLOURS, key=lambda c: float(np.linalg.norm(median - np.array(COLOURS[c][1]))))


def digest(found: Iterable[Example]) -> str:
    """Names these pictures and captions, whatever their files are called."""
    total = hashlib.sha256()
    for example in found:
        total.update(example.picture.tobytes() + example.caption.encode("utf-8", "replace"))
    return total.hexdigest()[:10]


@dataclass(frozen=True)
class Lesson:
    """All that a step draws from. latents (N, C, h, w) scaled; contexts (N, K, E); pooled (N, P)
    or None. With prior preservation the last `classes` rows are pictures of the class."""

    latents: Tensor
    contexts: Tensor
    pooled: Tensor | None
    size: int
    classes: int = 0
    silence: tuple[Tensor, Tensor | None] | None = None  # the empty caption, (1, K, E) and (1, P)

    def batch(self, count: int, generator: torch.Generator, device, empty: float = 0.0) -> tuple:
        """Latents, contexts and what SD XL hears beside, for `count` pictures of the character
        and as many of the class; float32, for bfloat16 would round SD XL's sizes.

        empty: share of the captions that are left empty, as guidance asks the model too.
        """
        own = len(self.latents) - self.classes
        rows = torch.randint(own, (count,), generator=generator)
        if self.classes:
            class_rows = own + torch.randint(self.classes, (count,), generator=generator)
            rows = torch.cat([rows, class_rows])
        contexts = self.contexts[rows]
        pooled = None if self.pooled is None else self.pooled[rows]
        mute = torch.rand(len(rows), generator=generator) < empty
        if mute.any():
            contexts[mute] = self.silence[0]
            if pooled is not None:
                pooled[mute] = self.silence[1]
        more = added_cond_kwargs(pooled, self.size, self.size, device, torch.float32)
        return self.latents[rows].to(device), contexts.to(device), more


def lesson(
    models: Any, own: Sequence[Example], classes: Sequence[Example], size: int, flip: bool
) -> Lesson:
    """Pictures through the autoencoder and captions through the text encoders of `models`.

    flip: each picture is learned mirrored as well.
    """
    groups = [list(own), list(classes)]
    if flip:
        groups = [g + [Example(ImageOps.mirror(e.picture), e.caption) for e in g] for g in groups]
    rows = groups[0] + groups[1]
    latents = []
    for example in rows:
        with models.lock:
            latents.append(vae.encode(models.vae, to_tensor(example.picture), models.device))
    heard = hear(models, {"", *(e.caption for e in rows)})
    contexts = torch.cat([heard[e.caption][0] for e in rows])
    pooled = None
    if heard[rows[0].caption][1] is not None:
        pooled = torch.cat([heard[e.caption][1] for e in rows])
    return Lesson(torch.cat(latents), contexts, pooled, size, len(groups[1]), heard[""])


def hear(models: Any, captions: Iterable[str]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """(context (1, K, E), pooled (1, P) or None) of each caption, float32 on the CPU, all with the
    same K: the shorter ones are filled up as beside the longest."""
    asked = {c: _read(models, c) for c in sorted(captions)}

    def one(caption: str, beside) -> tuple[Tensor, Tensor | None]:
        with models.lock:
            models.adapters.install(())
            said, _, _ = encode_prompts(
                models.text, asked[caption].prompt, beside, embeddings=asked[caption].embeddings
            )
        context, pooled, _ = said.at(0)
        return context.float().cpu(), None if pooled is None else pooled.float().cpu()

    alone = {c: one(c, parse("", 1)) for c in asked}
    longest = max(alone, key=lambda c: alone[c][0].shape[1])
    keys = alone[longest][0].shape[1]
    return {
        c: row if row[0].shape[1] == keys else one(c, asked[longest].prompt)
        for c, row in alone.items()
    }


def _read(models: Any, caption: str):
    asked = resources.find_resources(
        models, models.resolve(GenerateOptions(prompt=caption, steps=1, seed=0))
    )
    if asked.adapters:
        raise InputError("A LoRA learns on the bare model: take <lora:...> out of its prompt.")
    return asked
