"""A small byte-level BPE tokenizer in the format that `transformers.CLIPTokenizer` loads.

The base alphabet is CLIP's: 256 bytes and their 256 end-of-word forms, so text in every script can
be encoded. Each Han (Chinese) character counts as one word (see pipeline.prompt.text).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from ...disk import write_folder
from ...prompt.text import space_han
from .captions import caption
from .scenes import random_scene
from .vocabulary import Vocabulary

WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def train(
    vocabulary: Vocabulary, folder: Path, *, size: int = 3000, captions: int = 20_000
) -> None:
    """Train the emoji model's CLIP tokenizer on random captions and write its files to `folder`.

    vocabulary: the emoji and their names, of which captions are made; size: number of tokens, at
    most; captions: number of training captions in each language, English and Chinese. `folder` is
    written completely or not at all.
    """
    generator = torch.Generator().manual_seed(0)

    def texts() -> Iterator[str]:
        for language in ("en", "zh"):
            for _ in range(captions):
                scene = random_scene(len(vocabulary), generator)
                yield space_han(caption(scene, vocabulary, language, generator))

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - 512,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(texts(), trainer)
    merges = [tuple(m) for m in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{a}</w>" for a in alphabet)]
    tokens += [t for t in ("".join(m) for m in merges) if t not in set(tokens)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*tokens, BOS, EOS]))}
    clip = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]

    def write(part: Path) -> None:
        clip.save_pretrained(part)
        # The two files that every reader of CLIP's format expects.
        (part / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
        (part / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    write_folder(folder, write)


def load(folder: Path) -> CLIPTokenizer:
    """Load the CLIP tokenizer whose files are in `folder`."""
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
