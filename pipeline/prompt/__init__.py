"""From a prompt to what the UNet hears: `syntax` reads it, `encode` asks the text encoders.

A prompt longer than the encoder's window (75 words' tokens between start and end) is cut into
chunks of 75 that are encoded one by one and laid behind each other, as AUTOMATIC1111 does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..text import space_han
from . import encode as _encode  # noqa: F401  loaded first, or it would hide the function below

if TYPE_CHECKING:
    import torch


def chunks(tokenizer, text: str) -> list[list[int]]:
    """Token ids of `text` in windows of 77, each with start, end and padding."""
    window = min(tokenizer.model_max_length, 77)
    body = window - 2
    ids = tokenizer(space_han(text), add_special_tokens=False, verbose=False).input_ids
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    parts = [ids[i : i + body] for i in range(0, len(ids), body)] or [[]]
    rows = []
    for part in parts:
        row = [tokenizer.bos_token_id, *part, tokenizer.eos_token_id]
        rows.append(row + [pad] * (window - len(row)))
    return rows


def encode(
    tokenizer, text_encoder, prompt: str, negative: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder states of prompt and negative prompt, both (1, 77 * n, E), n the longer's chunks.

    The shorter one is filled up with chunks of the empty text.
    """
    import torch

    rows = [chunks(tokenizer, prompt), chunks(tokenizer, negative)]
    empty = chunks(tokenizer, "")
    n = max(len(r) for r in rows)
    states = []
    for row in rows:
        filled = row + empty * (n - len(row))
        ids = torch.tensor(filled, device=text_encoder.device)
        with torch.no_grad():
            hidden = text_encoder(input_ids=ids).last_hidden_state  # (n, 77, E)
        states.append(hidden.reshape(1, -1, hidden.shape[-1]))
    return states[0], states[1]


def words(tokenizer, text: str) -> list[tuple[str, list[int]]]:
    """Each word of `text` and where its tokens stand among the keys of `encode`'s states.

    CLIP's tokens say themselves where a word ends; a Han character is a word of its own.
    """
    out: list[tuple[str, list[int]]] = []
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    open_word: list[int] = []
    places: list[int] = []
    for chunk, row in enumerate(chunks(tokenizer, text)):
        for place, (token, name) in enumerate(
            zip(row, tokenizer.convert_ids_to_tokens(row), strict=True)
        ):
            if token in special:
                continue
            open_word.append(token)
            places.append(chunk * len(row) + place)
            if name.endswith("</w>"):
                out.append((tokenizer.decode(open_word).strip(), places))
                open_word, places = [], []
    if open_word:
        out.append((tokenizer.decode(open_word).strip(), places))
    return out
