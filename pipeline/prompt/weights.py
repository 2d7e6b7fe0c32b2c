"""Word weights: (x) weighs 1.1, [x] 1/1.1, (x:1.5) 1.5; nested brackets multiply.

The rules are those of "Attention/emphasis" of AUTOMATIC1111/stable-diffusion-webui: round and
square brackets may cross, and a bracket that is never closed applies to all text after it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .tokens import NUMBER, OPENER, Hints, Token, quote

MAX_WEIGHT = 10.0  # largest absolute weight
FACTOR = {"(": 1.1, "[": 1 / 1.1}  # weight of a bracket without a number


def weigh(tokens: list[Token], numbers: Iterable[int], hints: Hints) -> list[tuple[int, float]]:
    """Compute the weight of each piece of text in a prompt from the brackets around it.

    tokens: those of the prompt's syntax. numbers: the indices in `tokens` of those to consider, in
    order. Returns (index, weight) of each that is text or BREAK. Weights are limited to -10 to 10;
    `hints` gets a sentence for the user about each that was changed or could not be read.
    """
    out: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for i in numbers:
        kind = tokens[i].kind
        if kind in opened:
            opened[kind].append(len(out))
        elif kind in OPENER and opened[OPENER[kind]]:
            start = opened[OPENER[kind]].pop()
            own = _own_weight(tokens, out, start, hints) if kind == ")" else None
            _multiply(out, start, FACTOR[OPENER[kind]] if own is None else own)
        elif kind != "tag":
            out.append([i, 1.0])
    for kind, starts in opened.items():
        for start in starts:
            _multiply(out, start, FACTOR[kind])
    for entry in out:
        if abs(entry[1]) > MAX_WEIGHT:
            hints.add(
                f"Brackets multiply to a weight of {entry[1]:.4g}, which is held at {MAX_WEIGHT:g}."
            )
            entry[1] = MAX_WEIGHT if entry[1] > 0 else -MAX_WEIGHT
    return [(i, weight) for i, weight in out]


def _multiply(out: list[list], start: int, factor: float) -> None:
    for entry in out[start:]:
        entry[1] *= factor


def _own_weight(tokens: list[Token], out: list[list], start: int, hints: Hints) -> float | None:
    """Return the number that a round bracket has at its end, as 1.5 in (...:1.5), or None.

    out: [index in `tokens`, weight] of the text before the closing bracket, from which the colon
    and the number are removed. start: where the bracket's content begins in `out`. hints: gets a
    sentence for the user about a number that is not valid.
    """
    if len(out) < start + 2 or tokens[out[-2][0]].kind != ":":
        return None
    last = tokens[out[-1][0]]
    if last.kind != "text":
        return None
    number = NUMBER.fullmatch(last.raw)
    if number is None:
        hints.add(
            f"The weight {quote(last.raw)} of (...:{quote(last.raw)}) is no number, so it is taken"
            " as text and the brackets weigh 1.1."
        )
        return None
    if abs(float(number[1])) > MAX_WEIGHT:
        hints.add(
            f"The weight {quote(last.raw)} is too large, so it is taken as text and the brackets"
            f" weigh 1.1; the limits are -{MAX_WEIGHT:g} and {MAX_WEIGHT:g}."
        )
        return None
    del out[-2:]
    return float(number[1])
