"""How near colorization comes to true colours: scenes are turned grey and coloured as captioned.

The scenes are those of `evaluate`, drawn from its own seed and never trained on: a true picture,
its lightness alone, and what the task makes of that, told the caption in English, in Chinese, or
nothing. Errors are means over all pixels, in CIEDE2000 and CIE 1976, beside those of the grey.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ... import tasks
from ...images import lab
from ...images.open import to_tensor
from ...latents.vae import to_image
from ..sheet import save_sheet
from .evaluate import asked
from .scenes import Composer, Scene, Vocabulary, caption

ERRORS = {"ciede2000": lab.delta_e2000, "cie76": lab.delta_e76}
TOLD = {"en": "English", "zh": "Chinese", "none": "nothing"}
SHOWN = 8  # scenes of the sheet, of one object and of two each


def evaluate(
    models,
    data: Path,
    *,
    count: int = 100,
    progress: bool = True,
    sheet: Path | None = None,
    **options,
) -> dict:
    """The table of figures: `count` scenes of one object, half as many of two.

    table["one"]["en"]["ciede2000"] is the mean error of what was coloured, told in English;
    "grey_ciede2000" that of the grey; "closer" the share of scenes where the first is less.
    sheet: where to save the first scenes, each as grey, coloured (English) and true. options: what
    the task is to be told besides, instead of its own defaults.
    """
    vocabulary = Vocabulary.from_packages(data)
    composer = Composer(data, vocabulary)
    table: dict = {"count": count, "options": options}
    shown: list[Image.Image] = []
    for kind, scenes in zip(("one", "two"), asked(count, len(vocabulary)), strict=True):
        table[kind] = {}
        for language in TOLD:
            rows = []
            for i, scene in enumerate(tqdm(scenes, f"{kind}, {language}", disable=not progress)):
                true = to_image(composer.draw([scene]) / 2 + 0.5)
                grey = lab.grey(true)
                told = _told(scene, vocabulary, language)
                made = _coloured(models, grey, told, i, options)
                rows.append(errors(true, made) | errors(true, grey, "grey_"))
                if language == "en" and i < SHOWN:
                    shown += [grey, made, true]
            table[kind][language] = _means(rows)
    if sheet is not None:
        pictures = torch.cat([to_tensor(image) for image in shown]) * 2 - 1
        save_sheet(pictures, sheet, columns=6)
    return table


def errors(true: Image.Image, made: Image.Image, prefix: str = "") -> dict[str, float]:
    """The mean of each of ERRORS over the pixels of two pictures of one size."""
    a, b = lab.to_lab(true), lab.to_lab(made)
    return {prefix + name: float(error(a, b).mean()) for name, error in ERRORS.items()}


def _told(scene: Scene, vocabulary: Vocabulary, language: str) -> str:
    return "" if language == "none" else caption(scene, vocabulary, language)


def _coloured(models, grey: Image.Image, prompt: str, seed: int, options: dict) -> Image.Image:
    wanted = tasks.options("colorize", picture=grey, prompt=prompt, seed=seed, **options)
    *_, result = tasks.stream(models, "colorize", wanted)
    return result.images[0]


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    closer = np.mean([row["ciede2000"] < row["grey_ciede2000"] for row in rows])
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return means | {"closer": float(closer), "scenes": len(rows)}


def markdown(table: dict) -> str:
    """The figures as a table for the README."""
    lines = [
        "| scenes | told in | CIEDE2000, left grey | coloured | CIE76, left grey | coloured |"
        " closer than grey |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, name in (("one", "one object"), ("two", "two objects")):
        for language, words in TOLD.items():
            row = table[kind][language]
            figures = " | ".join(
                f"{row[prefix + error]:.1f}" for error in ERRORS for prefix in ("grey_", "")
            )
            lines.append(
                f"| {row['scenes']} of {name} | {words} | {figures} | {100 * row['closer']:.0f}% |"
            )
    return "\n".join(lines)
