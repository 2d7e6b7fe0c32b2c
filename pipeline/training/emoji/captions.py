"""Write captions of scenes in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from ...prompt.text import with_article
from .scenes import Scene, choose
from .vocabulary import COLOURS, OPPOSITE, RELATIONS, Vocabulary

T = TypeVar("T")

# Templates, chosen at random. {n} is a name, {a} and {b} are names too (with article in English),
# {c} is the background colour, {r} the relation ("left of"). PLAIN ones omit the background.
EN_SINGLE = (
    "{a} on a {c} background",
    "{a} on a {c} background",
    "{n} on a {c} background",
    "a picture of {a} on a {c} background",
    "{n}, {c} background",
    "{a} in front of a {c} background",
)
EN_PLAIN = ("{a}", "{n}", "a picture of {a}", "an emoji of {a}")
EN_PAIR = (
    "{a} {r} {b} on a {c} background",
    "{a} {r} {b} on a {c} background",
    "{a} {r} {b}, {c} background",
)
ZH_SINGLE = (
    "{c}背景上的{n}",
    "{c}背景上的{n}",
    "一个{n}，{c}背景",
    "{n}，{c}背景",
    "{c}背景，{n}",
    "{n}在{c}背景上",
)
ZH_PLAIN = ("{n}", "一个{n}", "{n}的图片")
ZH_PAIR = (
    "{a}在{b}{r}，{c}背景",
    "{c}背景上，{a}在{b}{r}",
    "{c}背景上的{a}，在{b}{r}",
)


def caption(
    scene: Scene,
    vocabulary: Vocabulary,
    language: str,
    generator: torch.Generator | None = None,
) -> str:
    """Return a caption, for training or evaluation, of one or two emoji on a plain background.

    scene: which emoji stand where, and the background's colour; language: "en" or "zh". With a
    generator, the wording is random: it may use another word for an emoji ("puppy"), name the
    second of two emoji first, or omit the background. Without one it is always the same.
    """
    return caption_with_names(scene, vocabulary, language, generator)[0]


def caption_with_names(
    scene: Scene,
    vocabulary: Vocabulary,
    language: str,
    generator: torch.Generator | None = None,
) -> tuple[str, tuple[str, ...]]:
    """Return (caption of `scene`, words used in it for each emoji), for a loss on single words.

    scene: which one or two emoji stand where on which background; the words are in the order of
    `scene.objects`. language: "en" or "zh". With a generator, the wording is random: it may use
    another word for an emoji ("puppy"), name the second of two emoji first, or omit the background.
    """

    def pick(options: Sequence[T]) -> T:
        return options[0] if generator is None else choose(options, generator)

    def chance(p: float) -> bool:
        return generator is not None and float(torch.rand((), generator=generator)) < p

    def name(index: int) -> str:
        known = vocabulary.objects[index]
        keywords = known.keywords_en if language == "en" else known.keywords_zh
        full = known.en if language == "en" else known.zh
        return pick(keywords) if keywords and chance(0.15) else full

    names = tuple(name(i) for i in scene.objects)
    colour = scene.colour if language == "en" else COLOURS[scene.colour][0]
    if scene.relation is None:
        plain = chance(0.15)
        if language == "en":
            form = pick(EN_PLAIN if plain else EN_SINGLE)
            return form.format(a=with_article(names[0]), n=names[0], c=colour), names
        return pick(ZH_PLAIN if plain else ZH_SINGLE).format(n=names[0], c=colour), names
    order, relation = names, scene.relation
    if chance(0.5):  # describe the same scene from the other object
        order, relation = names[::-1], OPPOSITE[relation]
    if language == "en":
        a, b = (with_article(n) for n in order)
        phrase = pick(RELATIONS[relation][0])
        return pick(EN_PAIR).format(a=a, b=b, r=phrase, c=colour), names
    phrase = pick(RELATIONS[relation][1])
    return pick(ZH_PAIR).format(a=order[0], b=order[1], r=phrase, c=colour), names
