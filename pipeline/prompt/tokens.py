"""Tokenize AUTOMATIC1111's prompt syntax (its brackets and tags, not CLIP's tokens)."""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

from ..errors import short

MAX_DEPTH = 32  # nested brackets; 1.1**25 already exceeds any useful weight
MAX_HINTS = 8  # hints that are shown
OPENER = {")": "(", "]": "["}  # closing bracket: its opening one
NUMBER = re.compile(r"\s*([+-]?(?:[0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20}))\s*")
SPECIAL = re.compile(
    r"\\[()\[\]\\:|]"  # an escape
    r"|[()\[\]:|]"
    r"|<(?:lora|lyco|hypernet):[^<>]+>"
    r"|\bBREAK\b"
)


class Token(NamedTuple):
    """A token of A1111's prompt syntax (not of CLIP): a bracket, a tag, or text between them.

    kind: "text", "break", "tag" (<lora:...>) or one of the characters ( ) [ ] : | as syntax. raw:
    as typed; joined in order, the tokens' `raw` give the prompt again. text: what CLIP reads if the
    token counts as text: `raw` with the backslashes of escapes removed.
    """

    kind: str
    raw: str
    text: str


class Hints:
    """A list of warnings for the user about the prompt, each once, filled while it is parsed.

    They are sentences on syntax that is ignored or probably not read as the user meant it, such as
    a bracket that closes nothing.
    """

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}

    def add(self, sentence: str) -> None:
        """Add a sentence for the user about the prompt's syntax, unless it was added before."""
        self._sentences[sentence] = None

    def sentences(self) -> tuple[str, ...]:
        """Return the warnings about the prompt: at most 8 (MAX_HINTS), then how many more exist.

        The last is a sentence too, and is left out if there are no more.
        """
        every = list(self._sentences)
        more = len(every) - MAX_HINTS
        return (*every[:MAX_HINTS], *([f"{more:,} more hints are not shown."] * (more > 0)))


def tokenize(prompt: str, hints: Hints) -> list[Token]:
    """Split the prompt into tokens of A1111's syntax (brackets, tags, text), not of CLIP.

    Closing brackets without an opening one, and brackets nested more than 32 deep, become text,
    each with a sentence for the user in `hints`.
    """
    tokens: list[Token] = []
    end = 0
    for match in SPECIAL.finditer(prompt):
        if match.start() > end:
            tokens.append(_text(prompt[end : match.start()], hints))
        raw = match[0]
        if raw[0] == "\\":
            tokens.append(Token("text", raw, raw[1]))
        else:
            kind = {"<": "tag", "B": "break"}.get(raw[0], raw)
            tokens.append(Token(kind, raw, raw))
        end = match.end()
    if end < len(prompt):
        tokens.append(_text(prompt[end:], hints))
    return _join(_balance(tokens, hints))


def as_text(token: Token) -> Token:
    """Return a bracket or tag of the prompt as a token of kind "text", as it was typed."""
    return Token("text", token.raw, token.raw)


def quote(raw: str) -> str:
    """Shorten a piece of the prompt to 40 printable characters, to quote it in a hint."""
    return short(raw if len(raw) <= 40 else raw[:37] + "...")


def _text(raw: str, hints: Hints) -> Token:
    if re.search(r"\bAND\b", raw):
        hints.add("AND is read as a word: prompts joined by AND are not supported.")
    return Token("text", raw, raw)


def _join(tokens: list[Token]) -> list[Token]:
    """Join neighbouring text tokens into one token."""
    out = []
    for is_text, group in groupby(tokens, lambda token: token.kind == "text"):
        if is_text:
            _, raws, texts = zip(*group, strict=True)
            out.append(Token("text", "".join(raws), "".join(texts)))
        else:
            out += group
    return out


def _balance(tokens: list[Token], hints: Hints) -> list[Token]:
    """Turn unmatched closing brackets, and brackets nested more than 32 deep, into text.

    hints: gets a sentence for the user about each, and about brackets that are never closed. Round
    and square brackets are counted separately, because A1111 lets them cross: (a [b) c].
    """
    opened = {"(": 0, "[": 0}
    skipped = {"(": 0, "[": 0}
    out = []
    for token in tokens:
        kind = token.kind
        if kind in opened:
            if opened["("] + opened["["] == MAX_DEPTH:
                hints.add(
                    f"Brackets deeper than {MAX_DEPTH} are taken as text; write \\{kind} to mean"
                    " the character."
                )
                skipped[kind] += 1
                token = as_text(token)
            else:
                opened[kind] += 1
        elif kind in OPENER:
            opener = OPENER[kind]
            if skipped[opener]:
                skipped[opener] -= 1
                token = as_text(token)
            elif opened[opener]:
                opened[opener] -= 1
            else:
                hints.add(f"A {kind} closes nothing and is taken as text; write \\{kind} for it.")
                token = as_text(token)
        out.append(token)
    for kind, count in opened.items():
        if count:
            hints.add(
                f"A {kind} is never closed, so it weighs everything after it; write \\{kind} to"
                " mean the character."
            )
    return out
