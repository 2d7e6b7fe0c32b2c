"""Prompt editing, text that changes from step to step: [from:to:when], [to:when] and [a|b].

The rules are those of the wiki of AUTOMATIC1111/stable-diffusion-webui, "Prompt editing" and
"Alternating words", and of its doctests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from .tokens import NUMBER, OPENER, Hints, Token, quote

Range = tuple[int, int]  # indices into the list of tokens: first, and one past the last


@dataclass(frozen=True, slots=True)
class Choice:
    """A bracket of a prompt whose text depends on the step: [from:to:when] or [a|b].

    close: the index of the token that closes it. ranges: for each text the indices of its first
    token and of the one after its last. last: of [from:to:when], the last step that has the first
    text; None for [a|b], whose texts alternate.
    """

    close: int
    ranges: tuple[Range, ...]
    last: int | None

    def at(self, step: int) -> Range:
        """Return which tokens of the prompt are the bracket's text at the sampling step `step`.

        They are a range (index of the first token, index after the last). step: counted from 1. In
        [from:to:when] and [a|b] the step decides which of the texts is used.
        """
        if self.last is None:
            return self.ranges[(step - 1) % len(self.ranges)]
        return self.ranges[step > self.last]


@dataclass(slots=True)
class _Frame:
    open: int
    kind: str
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)
    crossed: bool = False  # a bracket that opens inside it closes outside, or the reverse


def find_choices(tokens: list[Token], steps: int, hints: Hints) -> dict[int, Choice]:
    """Find the brackets [from:to:when] and [a|b] of a prompt, by the index of their opening token.

    tokens: those of the prompt's syntax. steps: how many the picture has. hints: gets a sentence
    for the user about each bracket that was probably meant as such but is not.
    """
    choices: dict[int, Choice] = {}
    frames: list[_Frame] = []
    open_frames = {"(": 0, "[": 0}
    for i, token in enumerate(tokens):
        kind = token.kind
        if kind in open_frames:
            frames.append(_Frame(i, kind))
            open_frames[kind] += 1
        elif kind in OPENER and open_frames[OPENER[kind]]:
            crossed = False
            while frames[-1].kind != OPENER[kind]:
                open_frames[frames.pop().kind] -= 1
                crossed = True
            frame = frames.pop()
            open_frames[frame.kind] -= 1
            if frame.crossed or crossed:
                if frames:
                    frames[-1].crossed = True
            elif kind == "]":
                choice = _choice(tokens, frame, i, steps, hints)
                if choice is not None:
                    choices[frame.open] = choice
        elif frames and kind == ":":
            frames[-1].colons.append(i)
        elif frames and kind == "|":
            frames[-1].bars.append(i)
    return choices


def _choice(
    tokens: list[Token], frame: _Frame, close: int, steps: int, hints: Hints
) -> Choice | None:
    start, colons = frame.open + 1, frame.colons
    if not colons:
        if not frame.bars:
            return None
        starts = [start, *(bar + 1 for bar in frame.bars)]
        return Choice(close, tuple(zip(starts, [*frame.bars, close], strict=True)), None)
    raw = "".join(t.raw for t in tokens[colons[-1] + 1 : close][:2])
    when = NUMBER.fullmatch(raw)
    if when is None or close - colons[-1] != 2:
        hints.add(
            f"[...:{quote(raw)}] names no step after its last colon, so it only weighs its text"
            " less; [from:to:when] and [to:when] take a number of steps or a share such as 0.5."
        )
        return None
    if len(colons) > 2:
        hints.add(
            f"[...:{quote(raw)}] has {len(colons)} colons, so it only weighs its text less;"
            " [from:to:when] has two, and \\: is a colon of the text."
        )
        return None
    middle = start if len(colons) == 1 else colons[0]
    after = (start if len(colons) == 1 else middle + 1, colons[-1])
    return Choice(close, ((start, middle), after), _last_step(when[1], steps, hints))


def _last_step(when: str, steps: int, hints: Hints) -> int:
    """Return the last step, 0 to `steps`, that has the first text of [from:to:when].

    when: a number of steps, or with a decimal point a share of all. The product is exact: 0.29 of
    100 steps is 29, as A1111 documents it; A1111's own float product is truncated to 28. hints:
    gets a sentence for the user about a step outside the picture's.
    """
    number = Decimal(when) * (steps if "." in when else 1)
    if number < 0:
        hints.add(f"The step {when} of a [from:to:when] lies before the first and counts as 0.")
    if number > steps:
        hints.add(
            f"The step {when} of a [from:to:when] lies past the last of {steps}, so the text never"
            " changes."
        )
    return min(steps, max(0, int(number)))


def select_tokens(
    count: int, choices: dict[int, Choice], pick: Callable[[Choice], tuple[Range, ...]]
) -> list[int]:
    """Return the indices of the prompt's tokens that remain when its choices are resolved.

    A choice is a bracket [from:to:when] or [a|b]. Of each, only the texts remain that `pick`
    selects; its brackets, signs and other texts are left out. count: number of tokens in the
    prompt. choices: the choices by the index of the token that opens them. pick: given a choice,
    returns the token range (first, one past the last) of each text to keep.
    """
    out: list[int] = []
    todo = [(0, count)]
    while todo:
        i, end = todo.pop()
        while i < end and i not in choices:
            out.append(i)
            i += 1
        if i < end:
            choice = choices[i]
            todo.append((choice.close + 1, end))
            todo.extend(reversed(pick(choice)))
    return out


def step_runs(choices: dict[int, Choice], steps: int) -> Iterator[tuple[int, int]]:
    """Divide a picture's steps into runs of consecutive steps that have the same prompt text.

    Yields for each run (its last step, the step whose text it has); steps count from 1. Where a
    text comes again, as at every second step of [a|b], the second number is the same, so that the
    caller computes the text once. choices: the prompt's brackets [from:to:when] and [a|b], by the
    index of their opening token. steps: number of steps of the picture.
    """
    lasts = sorted({c.last for c in choices.values() if c.last is not None})
    turns = sorted({len(c.ranges) for c in choices.values() if c.last is None})
    seen: dict[tuple[int, ...], int] = {}
    before: tuple[int, ...] | None = None
    for step in range(1, steps + 1):
        state = (bisect_left(lasts, step), *((step - 1) % n for n in turns))
        if before is not None and state != before:
            yield step - 1, seen[before]
        seen.setdefault(state, step)
        before = state
    if before is not None:
        yield steps, seen[before]
