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
    """A LoRA that the prompt names, as <lora:name:0.8>, and its strengths.

    name: of a LoRA in ./models. unet, text: strength in the UNet and in the text encoders, -100 to
    100.
    """

    name: str
    unet: float
    text: float


@dataclass(frozen=True)
class Segment:
    """A piece of the prompt's text that has one weight, such as 1.3 for (word:1.3)."""

    text: str
    weight: float


@dataclass(frozen=True)
class Break:
    """The word BREAK of a prompt: the text after it begins a new chunk of 75 CLIP tokens."""


BREAK = Break()


@dataclass(frozen=True)
class TimedText:
    """The text of a prompt for a range of steps; prompt editing such as [a|b] makes several.

    end: the last step of the range, counted from 1. The range begins after the `end` of the text
    before. segments: the text in pieces of one weight each, and Break where a new chunk of CLIP
    tokens begins.
    """

    end: int
    segments: tuple[Segment | Break, ...]


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt after A1111's syntax was parsed: its LoRAs, and the text of each step with weights.

    loras: those of the tags <lora:...>. parts: the text for each range of steps, in order. hints:
    sentences for the user about syntax that was probably meant otherwise.
    """

    loras: tuple[LoraTag, ...]
    parts: tuple[TimedText, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A piece of the prompt as typed, to highlight it; joined, all pieces give the prompt again.

    kind: "text"; "syntax", the brackets and numbers of a weight; "schedule", the signs of
    [from:to:when] and [a|b]; "lora"; "break". weight: the words' weight for kind "text", else None.
    """

    text: str
    kind: str
    weight: float | None = None


def parse(text: str, steps: int) -> ParsedPrompt:
    """Parse the prompt `text`, in A1111's syntax, for a picture of `steps` denoising steps.

    Never raises: what cannot be parsed is kept as plain text, and a hint says so.
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
    """Split a prompt into pieces by kind (text, LoRA, ...) and weight, to highlight them."""
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
    """Join neighbouring tokens of a prompt that have the same weight into pieces of text.

    weighed: (index in `tokens`, weight) of each token to keep, in order. Returns the pieces, with
    BREAK where the prompt has the word BREAK, which ends a chunk; white space around it is removed.
    BREAK inside brackets also ends a chunk, while A1111 reads it there as an ordinary word.
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
    """Parse the tags such as <lora:name:0.8> among a prompt's tokens.

    Returns `tokens`, changed in place so that an invalid tag is text, and the LoRAs. hints: gets a
    sentence for the user about each tag that is not used as written.
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
    """Parse what follows "<lora:", split at ":" (name and strengths); None where it is invalid.

    The tag is <lora:NAME:TEXT_ENCODER:UNET>. The text encoder's strength defaults to 1, the UNet's
    to the text encoder's; te=NUMBER and unet=NUMBER name them. The rules are those of
    extensions-builtin/Lora of A1111.
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
