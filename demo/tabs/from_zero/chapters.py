"""The table of the chapters of the tab From zero, in their order: one file each, one row here.

`build(page)` fills the chapter's panel with components and wires them; chapter_parts.py has what
all of them use. `texts` holds the chapter's own texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...page import Page
from ...ui.tab import Text
from . import latents, sampling, trace, unet, words
from .texts import latents as latents_texts
from .texts import sampling as sampling_texts
from .texts import trace as trace_texts
from .texts import unet as unet_texts
from .texts import words as words_texts


@dataclass(frozen=True)
class Chapter:
    """A row of CHAPTERS."""

    title: Text
    build: Callable[[Page], None]
    texts: dict[str, Text]


CHAPTERS = {
    "latents": Chapter(("Latents and noise", "潜变量与噪声"), latents.build, latents_texts.TEXTS),
    "words": Chapter(("Words", "文字"), words.build, words_texts.TEXTS),
    "unet": Chapter(("UNet and training", "UNet 与训练"), unet.build, unet_texts.TEXTS),
    "sampling": Chapter(
        ("Samplers and guidance", "采样与引导"), sampling.build, sampling_texts.TEXTS
    ),
    "whole": Chapter(("The whole", "全貌"), trace.build, trace_texts.TEXTS),
}


def chapter_texts() -> dict[str, Text]:
    """Return the texts of all chapters by key; the title of a chapter is `zero_KEY_title`."""
    rows: dict[str, Text] = {}
    for key, chapter in CHAPTERS.items():
        rows |= {f"zero_{key}_title": chapter.title} | chapter.texts
    return rows
