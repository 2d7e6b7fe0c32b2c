"""Split a prompt of any length into chunks of at most 75 CLIP tokens.

The text encoder reads 77 tokens at a time: a chunk between a start and an end token. The rules are
those of modules/sd_hijack_clip.py of AUTOMATIC1111/stable-diffusion-webui (A1111).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .embeddings import Embedding, split_at_names
from .syntax import BREAK, Break, ParsedPrompt, Segment
from .text import space_han

WINDOW = 77  # tokens that CLIP's text encoder reads at once: 75 between start and end token
BACKTRACK = 20  # a full chunk ends at its last comma if at most this many tokens follow it


class PromptToken(NamedTuple):
    """One position of an encoded prompt: a CLIP token, or one vector of an embedding.

    token: CLIP's token id, or 0 as a placeholder for a textual inversion embedding. weight: that of
    its word in the prompt's syntax, as 1.3 in (word:1.3); 1 without brackets. embedding: the
    embedding's name, None for a token. vector: the index of the embedding's vector.
    """

    token: int
    weight: float
    embedding: str | None = None
    vector: int = 0


# What a chunk boundary does not split: one token, all vectors of an embedding, or BREAK.
Unit = list[PromptToken] | Break
# Each word and the positions of its tokens along K of the text encoder's context (1, K, E).
WordSpans = tuple[tuple[str, list[int]], ...]


def window(tokenizer: Any) -> int:
    """Return how many tokens CLIP reads at once, start and end token included: 77.

    Fewer for a tokenizer with a smaller model_max_length.
    """
    return min(tokenizer.model_max_length, WINDOW)


def chunks(
    tokenizer: Any, segments: tuple[Segment | Break, ...], embeddings: Mapping[str, Embedding]
) -> list[list[PromptToken]]:
    """Split one text into chunks of at most 75 positions, which CLIP encodes one by one.

    segments: the parsed text with its weights; Break ends a chunk. embeddings: the textual
    inversions by name; one whose vectors fit into a chunk is not split over two. An empty text
    gives one empty chunk.
    """
    body = window(tokenizer) - 2
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    comma = None if comma == tokenizer.unk_token_id else comma
    rows: list[list[PromptToken]] = []
    row: list[PromptToken] = []
    last_comma: int | None = None
    for unit in _units(tokenizer, segments, embeddings):
        if isinstance(unit, Break):
            rows.append(row)
            row, last_comma = [], None
            continue
        if unit[0].token == comma and unit[0].embedding is None:
            last_comma = len(row)
        elif len(row) == body and last_comma is not None and body - last_comma <= BACKTRACK:
            rows.append(row[: last_comma + 1])
            row, last_comma = row[last_comma + 1 :], None
        if len(row) == body or len(row) + len(unit) > body >= len(unit):
            rows.append(row)
            row, last_comma = [], None
        while len(row) + len(unit) > body:
            room = body - len(row)
            rows.append(row + unit[:room])
            row, unit, last_comma = [], unit[room:], None
        row.extend(unit)
    if row or not rows:
        rows.append(row)
    return rows


def count_tokens(
    tokenizer: Any, prompt: ParsedPrompt, embeddings: Mapping[str, Embedding] | None = None
) -> tuple[int, int]:
    """Return (tokens used, tokens that fit into the chunks), such as (12, 75), for a token counter.

    A prompt is encoded in chunks of 75 tokens; every chunk but the last counts as full, as in
    A1111. Of a prompt whose text changes between steps the longest text counts.
    """
    body = window(tokenizer) - 2
    most = (0, body)
    for segments in {part.segments for part in prompt.parts}:
        rows = chunks(tokenizer, segments, embeddings or {})
        most = max(most, (body * (len(rows) - 1) + len(rows[-1]), body * len(rows)))
    return most


def find_word_spans(tokenizer: Any, rows: list[list[PromptToken]]) -> WordSpans:
    """Return each word of a text and the positions of its tokens along K of the context (1, K, E).

    They tell which columns of an attention map belong to a word. rows: the text's chunks of at most
    75 positions. A word ends at the token that CLIP's vocabulary marks with </w>. A Han character
    is a word of its own, and so is an embedding.
    """
    spans: list[tuple[str, list[int]]] = []
    tokens: list[int] = []
    positions: list[int] = []
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}

    def close_word() -> None:
        if positions:
            spans.append((tokenizer.decode(tokens).strip(), positions.copy()))
        tokens.clear()
        positions.clear()

    length = window(tokenizer)
    for number, row in enumerate(rows):
        names = tokenizer.convert_ids_to_tokens([entry.token for entry in row])
        pairs = zip(row, names, strict=True)
        for position, (entry, name) in enumerate(pairs, number * length + 1):
            if entry.embedding is not None:
                close_word()
                if entry.vector == 0:
                    spans.append((entry.embedding, []))
                spans[-1][1].append(position)
            elif entry.token not in special:
                tokens.append(entry.token)
                positions.append(position)
                if name.endswith("</w>"):
                    close_word()
    close_word()
    return tuple(spans)


def _units(
    tokenizer: Any, segments: tuple[Segment | Break, ...], embeddings: Mapping[str, Embedding]
) -> list[Unit]:
    """Split a text into pieces that must not be divided over two chunks of 75 tokens, in order.

    A piece is one CLIP token, all vectors of a textual inversion, or Break. embeddings: the textual
    inversions by name.
    """
    pieces: list[tuple[str, float, bool] | Break] = []  # (text, weight, is an embedding's name)
    for segment in segments:
        if isinstance(segment, Break):
            pieces.append(BREAK)
        else:
            cut = split_at_names(segment.text, embeddings)
            pieces += [(text, segment.weight, named) for text, named in cut]
    # A lone surrogate cannot be encoded. GenerateOptions refuses it, but the page counts the tokens
    # of any text, so here it is replaced.
    texts = [
        space_han(piece[0].encode("utf-8", "replace").decode())
        for piece in pieces
        if not isinstance(piece, Break) and not piece[2]
    ]
    ids = iter(tokenizer(texts, add_special_tokens=False, verbose=False).input_ids if texts else [])
    units: list[Unit] = []
    for piece in pieces:
        if isinstance(piece, Break):
            units.append(BREAK)
            continue
        text, weight, named = piece
        if named:
            count = embeddings[text].count
            units.append([PromptToken(0, weight, text, vector) for vector in range(count)])
        else:
            units += [[PromptToken(token, weight)] for token in next(ids)]
    return units
