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
    """One position of a chunk: a CLIP token, or one vector of a textual inversion embedding.

    token: CLIP's token id, or 0 as a placeholder for an embedding. weight: what the prompt's
    brackets say, 1 without any. embedding: the embedding's name, None for a token. vector: the
    index of the embedding's vector.
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
    """Return the length of a chunk with its start and end token: 77 for CLIP's tokenizers."""
    return min(tokenizer.model_max_length, WINDOW)


def chunks(
    tokenizer: Any, segments: tuple[Segment | Break, ...], embeddings: Mapping[str, Embedding]
) -> list[list[PromptToken]]:
    """Split one text into chunks of at most 75 positions; an empty text gives one empty chunk.

    segments: the text with its weights, from `syntax.parse`; Break ends a chunk. embeddings: the
    textual inversions by name; one whose vectors fit into a chunk is not split over two.
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
    """Return (tokens used, tokens that fit into the chunks), such as (12, 75), for a counter.

    Of a prompt whose text changes between steps the longest text counts. Every chunk but the last
    counts as full, as in A1111.
    """
    body = window(tokenizer) - 2
    most = (0, body)
    for segments in {part.segments for part in prompt.parts}:
        rows = chunks(tokenizer, segments, embeddings or {})
        most = max(most, (body * (len(rows) - 1) + len(rows[-1]), body * len(rows)))
    return most


def find_word_spans(tokenizer: Any, rows: list[list[PromptToken]]) -> WordSpans:
    """Return each word of a text and the positions of its tokens along K of the context (1, K, E).

    rows: the text's chunks, from `chunks`. A word ends at the token that CLIP's vocabulary marks
    with </w>. A Han character is a word of its own, and so is an embedding.
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
    """Return the pieces of the text that no chunk boundary splits, in order.

    All text outside embeddings' names is tokenized in one call.
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
