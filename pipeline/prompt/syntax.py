"""Parse AUTOMATIC1111's prompt language: the text of each step, and the weight of each word.

    (word)  ((word))  [word]  (word:1.3)      attention
    \\(  \\)  \\[  \\]  \\\\  \\:  \\|               the character itself
    BREAK                                     the rest goes into the next chunk of 75 tokens
    [from:to:when]  [to:when]  [from::when]   another text after step `when`
    [a|b|c]                                   another text at each step
    <lora:name:0.8>                           a LoRA and its strength

Nothing is an error: what cannot be read is taken as_textly, and a hint says so. The time is linear
in the prompt's length times the number of different texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .schedule import Choice, Range, find_choices, select_tokens, step_runs
from .tokens import Hints, Token, as_text, quote, tokenize
from .weights import weigh

MAX_LORA = 100.0


@dataclass(frozen=True)
class LoraTag:
    """A LoRA that the prompt names, and its strength in the UNet and in the text encoders."""

    name: str
    unet: float
    text: float


@dataclass(frozen=True)
class Segment:
    """A stretch of text and the weight of its tokens."""

    text: str
    weight: float


@dataclass(frozen=True)
class Break:
    """Where a chunk ends early."""


BREAK = Break()


@dataclass(frozen=True)
class TimedText:
    """The text that holds up to and including step `end`, counted from 1."""

    end: int
    segments: tuple[Segment | Break, ...]


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt: its LoRAs, its text for each range of steps, and hints for whoever wrote it."""

    loras: tuple[LoraTag, ...]
    parts: tuple[TimedText, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A stretch of the prompt as it was typed; all of them in order are the prompt.

    kind: "text", which has a weight; "syntax", the signs of attention; "schedule", those of
    [from:to:when] and [a|b]; "lora"; "break".
    """

    text: str
    kind: str
    weight: float | None = None


def parse(text: str, steps: int) -> ParsedPrompt:
    """Parse `text` for a picture of `steps` steps. Never raises; the last part ends at `steps`."""
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
    """Return the prompt as typed, in spans with their weights, for the page to show."""
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
    """Join neighbours of one weight, without white space around BREAK.

    A BREAK inside a bracket breaks too; A1111 multiplies its mark with the weight and then reads it
    as a word.
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
    """Return the tokens and the LoRAs of their tags; a tag that cannot be read becomes text."""
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
    """Parse name[:text encoder[:UNet]], also te= and unet=; the UNet's defaults to the former.

    As extensions-builtin/Lora of AUTOMATIC1111/stable-diffusion-webui reads it.
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
