"""The table of the chapters of the tab From zero, in their order.

A chapter is one file beside this one, a file with its texts in texts/, and one row of CHAPTERS.
chapter_parts.py and chapter_html.py hold what several chapters use.
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
    """One chapter of the tab From zero, which explains Stable Diffusion.

    title  the name on the chapter's own tab, in English and Chinese
    build  build(page) adds the chapter's components to the page and attaches their listeners
    texts  a dict from text key to (English, Chinese), texts that only this chapter uses
    """

    title: Text
    build: Callable[[Page], None]
    texts: dict[str, Text]


CHAPTERS = {  # by key, which is part of the ids of the chapter's elements
    "latents": Chapter(("Latents and noise", "潜变量与噪声"), latents.build, latents_texts.TEXTS),
    "words": Chapter(("Words", "文字"), words.build, words_texts.TEXTS),
    "unet": Chapter(("UNet and training", "UNet 与训练"), unet.build, unet_texts.TEXTS),
    "sampling": Chapter(
        ("Samplers and guidance", "采样与引导"), sampling.build, sampling_texts.TEXTS
    ),
    "whole": Chapter(("The whole", "全貌"), trace.build, trace_texts.TEXTS),
}


def chapter_texts() -> dict[str, Text]:
    """Return the texts of all chapters: a dict from text key to (English, Chinese).

    The key of a chapter's title is "zero_KEY_title", with the chapter's key in CHAPTERS.
    """
    rows: dict[str, Text] = {}
    for key, chapter in CHAPTERS.items():
        rows |= {f"zero_{key}_title": chapter.title} | chapter.texts
    return rows
