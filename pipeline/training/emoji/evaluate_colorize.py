"""`python -m pipeline train evaluate-colorize`: measure the colour errors of the task "colorize".

The scenes are those of evaluate.py, with a seed that training does not use. Each picture is reduced
to its lightness and colorized with its caption as the prompt, in English, in Chinese, or with an
empty prompt. The errors are colour differences CIEDE2000 and CIE 1976 to the true picture, averaged
over all pixels; the same errors of the grey picture are given for comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ... import tasks
from ...events import Result
from ...images import lab
from ...images.open import to_tensor
from ...latents.vae import to_image
from ..sheet import save_sheet
from .captions import caption
from .evaluate import evaluation_scenes
from .scenes import Composer
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ...model import Models

ERRORS = {"ciede2000": lab.delta_e2000, "cie76": lab.delta_e76}
PROMPTS = {"en": "English", "zh": "Chinese", "none": "nothing"}
SHEET_SCENES = 8  # shown on the sheet: so many scenes of one object and of two


def evaluate(
    models: Models,
    data: Path,
    *,
    count: int = 100,
    progress: bool = True,
    sheet: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measure how well a model colours grey pictures (the task "colorize"); return the errors.

    The pictures are composed of emoji: `count` of one, half as many of two. data: folder of the npm
    packages with the emoji's pictures and names; progress: show progress bars; sheet: PNG file for
    the first pictures (grey, colorized with the English prompt, true), or None; options: further
    options of the task.

    The result has, in result["one"] for pictures of one emoji and result["two"] for two, a dict for
    each kind of prompt: "en" (English), "zh" (Chinese), "none" (empty). In it "ciede2000" and
    "cie76" are mean colour errors of the colorized pictures, "grey_ciede2000" and "grey_cie76"
    those of the grey ones, "closer" the share (0 to 1) of pictures whose CIEDE2000 is smaller
    colorized than grey, "scenes" the number of pictures. result["count"] and result["options"] are
    the arguments.
    """
    vocabulary = Vocabulary.from_packages(data)
    composer = Composer(data, vocabulary)
    table: dict[str, Any] = {"count": count, "options": options}
    shown: list[Image.Image] = []
    for kind, scenes in zip(("one", "two"), evaluation_scenes(count, len(vocabulary)), strict=True):
        table[kind] = {}
        for language in PROMPTS:
            rows = []
            for i, scene in enumerate(tqdm(scenes, f"{kind}, {language}", disable=not progress)):
                true = to_image(composer.draw([scene]) / 2 + 0.5)
                grey = lab.grey(true)
                prompt = "" if language == "none" else caption(scene, vocabulary, language)
                colorized = _colorize(models, grey, prompt, i, options)
                rows.append(errors(true, colorized) | errors(true, grey, "grey_"))
                if language == "en" and i < SHEET_SCENES:
                    shown += [grey, colorized, true]
            table[kind][language] = _means(rows)
    if sheet is not None:
        pictures = torch.cat([to_tensor(image) for image in shown]) * 2 - 1
        save_sheet(pictures, sheet, columns=6)
    return table


def errors(true: Image.Image, other: Image.Image, prefix: str = "") -> dict[str, float]:
    """Return how far the colours of a picture are from the true ones, averaged over all pixels.

    true, other: pictures of the same size. The result is a dict with the keys `prefix` +
    "ciede2000" and `prefix` + "cie76", two measures of colour difference.
    """
    a, b = lab.to_lab(true), lab.to_lab(other)
    return {prefix + name: float(error(a, b).mean()) for name, error in ERRORS.items()}


def _colorize(
    models: Models, grey: Image.Image, prompt: str, seed: int, options: dict[str, Any]
) -> Image.Image:
    request = tasks.options("colorize", picture=grey, prompt=prompt, seed=seed, **options)
    *_, result = tasks.stream(models, "colorize", request)
    assert isinstance(result, Result)
    return result.images[0]


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    closer = np.mean([row["ciede2000"] < row["grey_ciede2000"] for row in rows])
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return means | {"closer": float(closer), "scenes": len(rows)}


def to_markdown(table: dict[str, Any]) -> str:
    """Return the measured colour errors of colorized pictures as a Markdown table.

    table: a dict that `evaluate` returns; table["one"]["en"] has the mean errors for pictures of
    one emoji with English prompts, "two" those of two, "zh" and "none" those with other prompts.
    """
    lines = [
        "| scenes | told in | CIEDE2000, left grey | coloured | CIE76, left grey | coloured |"
        " closer than grey |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, name in (("one", "one object"), ("two", "two objects")):
        for language, words in PROMPTS.items():
            row = table[kind][language]
            figures = " | ".join(
                f"{row[prefix + error]:.1f}" for error in ERRORS for prefix in ("grey_", "")
            )
            lines.append(
                f"| {row['scenes']} of {name} | {words} | {figures} | {100 * row['closer']:.0f}% |"
            )
    return "\n".join(lines)
