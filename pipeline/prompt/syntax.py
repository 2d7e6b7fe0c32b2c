"""Parse AUTOMATIC1111's prompt language: the text of each step, and the weight of each word.

    (word)  ((word))  [word]  (word:1.3)      weight of a word
    \\(  \\)  \\[  \\]  \\\\  \\:  \\|               the character itself
    BREAK                                     the rest goes into the next chunk of 75 tokens
    [from:to:when]  [to:when]  [from::when]   another text after step `when`
    [a|b|c]                                   another text at each step
    <lora:name:0.8>                           a LoRA and its strength

Nothing is an error: what cannot be parsed is kept as plain text, and a hint says so. The time is
linear in the prompt's length times the number of different texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .schedule import Choice, Range, find_choices, select_tokens, step_runs
from .tokens import Hints, Token, as_text, quote, tokenize
from .weights import weigh

MAX_LORA = 100.0  # largest absolute strength of a LoRA


@dataclass(frozen=True)
class LoraTag:
    """A LoRA that the prompt names, and its strength in the UNet and in the text encoders.

    name: the LoRA's name in the model library. unet, text: strengths, -MAX_LORA to MAX_LORA.
    """

    name: str
    unet: float
    text: float


@dataclass(frozen=True)
class Segment:
    """A piece of the prompt's text whose tokens all have one weight."""

    text: str
    weight: float


@dataclass(frozen=True)
class Break:
    """The word BREAK of a prompt: the text after it begins a new chunk of tokens."""


BREAK = Break()


@dataclass(frozen=True)
class TimedText:
    """The text of a prompt for a range of steps.

    end: the last step of the range, counted from 1. It begins after the `end` of the item before.
    """

    end: int
    segments: tuple[Segment | Break, ...]


@dataclass(frozen=True)
class ParsedPrompt:
    """A parsed prompt.

    parts: the text for each range of steps, in order. hints: sentences about syntax that was
    probably meant otherwise, for the user.
    """

    loras: tuple[LoraTag, ...]
    parts: tuple[TimedText, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A piece of the prompt as it was typed; joined in order, all pieces give the prompt again.

    kind: "text"; "syntax", the brackets and numbers of a weight; "schedule", the signs of
    [from:to:when] and [a|b]; "lora"; "break". weight: the words' weight for kind "text", else None.
    """

    text: str
    kind: str
    weight: float | None = None


def parse(text: str, steps: int) -> ParsedPrompt:
    """Parse the prompt `text` for a picture that is drawn in `steps` steps; never raises.

    The last text of the result's `parts` ends at `steps`.
    """
    hints = Hints()
    tokens, loras = _tags(tokenize(text, hints), hints)
    choices = find_choices(tokens, steps, hints)
    known: dict[int, tuple[Segment | Break, ...]] = {}
    parts: list[TimedText] = []
    for end, step in step_runs(choices, steps):
        if step not in known:
            numbers = select_tokens(len(tokens), choices, _pick_at(step))
            known[step] = _segments(tokens, weigh(tokens, numbers, hints))
        if parts and parts[-1].segments == known[step]:
            parts.pop()
        parts.append(TimedText(end, known[step]))
    return ParsedPrompt(tuple(loras), tuple(parts), hints.sentences())


def _pick_at(step: int) -> Callable[[Choice], tuple[Range, ...]]:
    return lambda choice: (choice.at(step),)


def parse_spans(text: str) -> list[Span]:
    """Split the prompt into pieces by kind and weight, for the page to highlight."""
    hints = Hints()
    tokens, _ = _tags(tokenize(text, hints), hints)
    choices = find_choices(tokens, 1, hints)
    left = select_tokens(len(tokens), choices, lambda choice: choice.ranges)
    weights = dict(weigh(tokens, left, hints))
    kinds = {i: "syntax" for i in left} | {i: "text" for i in weights}
    out: list[Span] = []
    for i, token in enumerate(tokens):
        kind = {"tag": "lora", "break": "break"}.get(token.kind, kinds.get(i, "schedule"))
        weight = weights[i] if kind == "text" else None
        if out and (out[-1].kind, out[-1].weight) == (kind, weight):
            out[-1] = Span(out[-1].text + token.raw, kind, weight)
        else:
            out.append(Span(token.raw, kind, weight))
    return out


def _segments(tokens: list[Token], weighed: list[tuple[int, float]]) -> tuple[Segment | Break, ...]:
    """Join neighbouring tokens of equal weight into segments, without white space around BREAK.

    weighed: (index of a token, its weight). A BREAK inside brackets ends a chunk too; A1111
    multiplies its internal mark for BREAK by the weight and then takes it for a word.
    """
    out: list[Segment | Break] = []
    texts: list[str] = []
    current = 1.0

    def close(strip: bool) -> None:
        text = "".join(texts)
        text = text.rstrip() if strip else text
        if text:
            out.append(Segment(text, current))
        texts.clear()

    for i, weight in weighed:
        token = tokens[i]
        if token.kind == "break":
            close(strip=True)
            out.append(BREAK)
            continue
        if texts and weight != current:
            close(strip=False)
        current = weight
        fresh = not texts and out and out[-1] is BREAK
        texts.append(token.text.lstrip() if fresh else token.text)
    close(strip=False)
    return tuple(out)


def _tags(tokens: list[Token], hints: Hints) -> tuple[list[Token], list[LoraTag]]:
    """Return the tokens and the LoRAs of the tags among them; an invalid tag becomes text.

    Changes `tokens` in place, and adds a hint for each tag that is not used as written.
    """
    loras = []
    for i, token in enumerate(tokens):
        if token.kind != "tag":
            continue
        kind, _, fields = token.raw[1:-1].partition(":")
        if kind == "hypernet":
            hints.add(f"{quote(token.raw)} is left out: hypernetworks are not supported.")
            continue
        lora = _lora(fields.split(":"))
        if lora is None:
            hints.add(
                f"{quote(token.raw)} is taken as text; a LoRA is asked for as <lora:name:0.8>, with"
                f" numbers from -{MAX_LORA:g} to {MAX_LORA:g}."
            )
            tokens[i] = as_text(token)
            continue
        if kind == "lyco":
            hints.add(f"{quote(token.raw)} is read as <lora:...>.")
        loras.append(lora)
    return tokens, loras


def _lora(fields: list[str]) -> LoraTag | None:
    """Parse the fields of <lora:NAME:TEXT_ENCODER:UNET>; None where they are invalid.

    The text encoder's strength defaults to 1, the UNet's to the text encoder's; te=NUMBER and
    unet=NUMBER name them. The rules are those of extensions-builtin/Lora of A1111.
    """
    name, *rest = (f.strip() for f in fields)
    named = dict(f.split("=", 1) for f in rest if "=" in f)
    plain = [f for f in rest if "=" not in f]
    if not name or len(plain) > 2 or not named.keys() <= {"te", "unet"}:
        return None
    text = named.get("te", plain[0] if plain else "1")
    unet = named.get("unet", plain[1] if len(plain) == 2 else text)
    try:
        numbers = float(unet), float(text)
    except ValueError:
        return None
    if not all(math.isfinite(n) and abs(n) <= MAX_LORA for n in numbers):
        return None
    return LoraTag(name, *numbers)
