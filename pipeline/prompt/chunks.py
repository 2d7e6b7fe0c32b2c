"""A prompt's text as rows of CLIP tokens: chunks of 75 to any length.

The rules are those of modules/sd_hijack_clip.py of AUTOMATIC1111/stable-diffusion-webui.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .embeddings import Embedding, split_at_names
from .syntax import BREAK, Break, ParsedPrompt, Segment
from .text import space_han

WINDOW = 77  # of CLIP: 75 tokens between start and end
BACKTRACK = 20  # a chunk ends at its last comma if no more tokens than these follow it


class Entry(NamedTuple):
    """One place in a chunk: a token, or vector number `vector` of an embedding."""

    token: int
    weight: float
    embedding: str | None = None
    vector: int = 0


def window(tokenizer) -> int:
    """Tokens of a chunk with start and end."""
    return min(tokenizer.model_max_length, WINDOW)


def chunks(
    tokenizer, segments: tuple[Segment | Break, ...], embeddings: Mapping[str, Embedding]
) -> list[list[Entry]]:
    """The text in rows of at most 75 entries; the empty text is one empty row.

    An embedding that fits into a row stands in one.
    """
    body = window(tokenizer) - 2
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    comma = None if comma == tokenizer.unk_token_id else comma
    rows: list[list[Entry]] = []
    row: list[Entry] = []
    last_comma = None
    for unit in _units(tokenizer, segments, embeddings):
        if unit is BREAK:
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
    tokenizer, prompt: ParsedPrompt, embeddings: Mapping[str, Embedding] | None = None
) -> tuple[int, int]:
    """Tokens of the prompt's longest text, and how many its chunks have room for.

    A chunk that is not the last counts as full, as A1111 counts.
    """
    body = window(tokenizer) - 2
    most = (0, body)
    for segments in {part.segments for part in prompt.parts}:
        rows = chunks(tokenizer, segments, embeddings or {})
        most = max(most, (body * (len(rows) - 1) + len(rows[-1]), body * len(rows)))
    return most


def find_word_spans(tokenizer, rows: list[list[Entry]]) -> tuple[tuple[str, list[int]], ...]:
    """Each word and where its tokens stand among the keys of the encoder's states.

    CLIP's tokens say themselves where a word ends; a Han character is a word of its own, and so is
    an embedding.
    """
    out: list[tuple[str, list[int]]] = []
    letters: list[int] = []
    places: list[int] = []
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}

    def close() -> None:
        if places:
            out.append((tokenizer.decode(letters).strip(), places.copy()))
        letters.clear()
        places.clear()

    wide = window(tokenizer)
    for number, row in enumerate(rows):
        names = tokenizer.convert_ids_to_tokens([entry.token for entry in row])
        for place, (entry, name) in enumerate(zip(row, names, strict=True), number * wide + 1):
            if entry.embedding is not None:
                close()
                if entry.vector == 0:
                    out.append((entry.embedding, []))
                out[-1][1].append(place)
            elif entry.token not in special:
                letters.append(entry.token)
                places.append(place)
                if name.endswith("</w>"):
                    close()
    close()
    return tuple(out)


def _units(
    tokenizer, segments: tuple[Segment | Break, ...], embeddings: Mapping[str, Embedding]
) -> list[list[Entry] | Break]:
    """What must not be torn apart: a token, all vectors of an embedding, or BREAK."""
    pieces: list[tuple[str, float, bool] | Break] = []
    for segment in segments:
        if isinstance(segment, Break):
            pieces.append(BREAK)
        else:
            pieces += [
                (t, segment.weight, named) for t, named in split_at_names(segment.text, embeddings)
            ]
    # Half a surrogate pair is no character; GenerateOptions refuses it, a counter must not.
    texts = [
        space_han(p[0].encode("utf-8", "replace").decode())
        for p in pieces
        if p is not BREAK and not p[2]
    ]
    ids = iter(tokenizer(texts, add_special_tokens=False, verbose=False).input_ids if texts else [])
    units: list[list[Entry] | Break] = []
    for piece in pieces:
        if piece is BREAK:
            units.append(BREAK)
            continue
        text, weight, named = piece
        if named:
            count = embeddings[text].count
            units.append([Entry(0, weight, text, vector) for vector in range(count)])
        else:
            units += [[Entry(token, weight)] for token in next(ids)]
    return units
