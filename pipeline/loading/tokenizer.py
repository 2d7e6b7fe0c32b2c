"""Load a CLIP tokenizer from the files in a manifest, and check that it fits its text encoder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..errors import InputError, short
from ..model_files.diffusers_folder import TokenizerFiles
from ..model_files.manifest import CLIP


def load_tokenizer(files: TokenizerFiles, text_encoder: Any) -> Any:
    """Build transformers' CLIPTokenizer from `files` and check that it fits its text encoder.

    text_encoder: the transformers module that takes its tokens. Raises InputError where the
    tokenizer cannot be loaded, has a token id beyond the encoder's vocabulary, or lacks a start or
    end token.
    """
    try:
        tokenizer = _from_contents(files)
        rows, highest = text_encoder.config.vocab_size, max(tokenizer.get_vocab().values())
        window = text_encoder.config.max_position_embeddings
        tokenizer.model_max_length = min(int(tokenizer.model_max_length), window)
        if files.place == CLIP and text_encoder.config.hidden_act == "gelu":
            tokenizer.pad_token = "!"  # token 0, with which OpenCLIP pads
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    except Exception as error:
        raise InputError(
            f"{short(files.place)} cannot be loaded: {short(str(error).strip() or repr(error))}"
        ) from None
    if highest >= rows:
        raise InputError(
            f"{short(files.place)} does not go with the text encoder: it numbers tokens up to"
            f" {highest:,}, the encoder knows {rows:,}."
        )
    if None in ends:
        raise InputError(f"{short(files.place)} names no start or no end token.")
    return tokenizer


def _from_contents(files: TokenizerFiles) -> Any:
    """Build a CLIPTokenizer from the bytes in `files`, which were checked.

    transformers reads tokenizers only from folders, so the bytes are written to a temporary one.
    """
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.contents.items():
            (Path(folder) / name).write_bytes(content)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.name_or_path = str(files.place)
    return tokenizer
