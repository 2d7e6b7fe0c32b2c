"""Load a CLIP tokenizer and hold it against its text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError, short
from ..model_files import manifest


def load_tokenizer(place: Path, text_encoder: Any) -> Any:
    """The tokenizer; each number it can give must have a row in the text encoder."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(place), local_files_only=True)
        rows, highest = text_encoder.config.vocab_size, max(tokenizer.get_vocab().values())
        window = text_encoder.config.max_position_embeddings
        tokenizer.model_max_length = min(int(tokenizer.model_max_length), window)
        if place == manifest.CLIP and text_encoder.config.hidden_act == "gelu":
            tokenizer.pad_token = "!"  # OpenCLIP fills up with the number 0
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    except Exception as error:
        raise InputError(
            f"{short(place)} cannot be loaded: {short(str(error).strip() or repr(error))}"
        ) from None
    if highest >= rows:
        raise InputError(
            f"{short(place)} does not go with the text encoder: it numbers tokens up to"
            f" {highest:,}, the encoder knows {rows:,}."
        )
    if None in ends:
        raise InputError(f"{short(place)} names no start or no end token.")
    return tokenizer
