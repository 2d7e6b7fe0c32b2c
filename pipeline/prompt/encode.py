"""Encode parsed prompts with the text encoders: the UNet's cross-attention context at each step.

Chunks, weights and clip skip work as in AUTOMATIC1111/stable-diffusion-webui (A1111:
modules/sd_hijack_clip.py, modules/sd_emphasis.py), layers and pooling as in diffusers' pipelines.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from .chunks import PromptToken, WordSpans, chunks, count_tokens, find_word_spans, window
from .embeddings import Embedding, insert_vectors, split_at_names
from .syntax import Break, ParsedPrompt, Segment
from .weights import MAX_WEIGHT

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Conditioning", "TextEncoder", "TextEncoders", "count_tokens", "encode_prompts"]

NO_EMBEDDINGS: Mapping[str, Embedding] = MappingProxyType({})
MIN_MEAN = 0.01  # a chunk's mean below this share of its mean absolute value counts as zero


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a model: transformers' CLIPTokenizer and its network.

    model: a CLIPTextModel or CLIPTextModelWithProjection. device: the torch.device on which the
    encoder computes if its weights are kept in main memory; None: where its weights are.
    """

    tokenizer: Any
    model: Any
    device: Any = None

    @property
    def width(self) -> int:
        """The size E of its hidden states."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def layers(self) -> int:
        """The number of transformer layers."""
        return self.model.config.num_hidden_layers


@dataclass(frozen=True)
class TextEncoders:
    """The text encoders of a model, and which of their hidden states the UNet takes.

    kind: "sd1": those of the last layer after the final layer norm. "sd2": the same, of an encoder
    that was saved without its last layer. "xl": those of the last layer but one without the norm,
    both encoders' concatenated along E, and the second encoder's pooled state. zero_empty_negative:
    whether an empty negative prompt is encoded as zeros.
    """

    encoders: tuple[TextEncoder, ...]
    kind: Literal["sd1", "sd2", "xl"]
    zero_empty_negative: bool = False


@dataclass(frozen=True, eq=False)
class Conditioning:
    """An encoded prompt, ready for the UNet: one or more texts, each for a range of steps.

    All fields have one item for each text; a prompt without prompt editing has one. ends: the last
    step, counted from 1, at which the text applies. contexts: (1, K, E) for the UNet's
    cross-attention. pooled: (1, P), or None for models other than XL. word_spans: each word of the
    text and the positions of its tokens along K.
    """

    ends: tuple[int, ...]
    contexts: tuple[Tensor, ...]
    pooled: tuple[Tensor | None, ...]
    word_spans: tuple[WordSpans, ...]

    def at(self, step: int) -> tuple[Tensor, Tensor | None, WordSpans]:
        """Return (context, pooled state, words) of the text that applies at `step`, counted from 0.

        context: (1, K, E). pooled state: (1, P), or None for models other than XL. words: each word
        and the positions of its tokens along K.
        """
        i = min(bisect_right(self.ends, step), len(self.ends) - 1)
        return self.contexts[i], self.pooled[i], self.word_spans[i]


def encode_prompts(
    text: TextEncoders,
    prompt: ParsedPrompt,
    negative: ParsedPrompt,
    *,
    clip_skip: int | None = None,
    embeddings: Mapping[str, Embedding] = NO_EMBEDDINGS,
) -> tuple[Conditioning, Conditioning, list[str]]:
    """Encode prompt and negative prompt for the UNet; return both and warnings for the user.

    All contexts (1, K, E) have the same K: shorter texts are padded with empty chunks of 77 tokens.
    clip_skip: the layer whose states are used, counted from the end as in A1111: 1 or None is the
    last. embeddings: textual inversions by name; a warning says which do not fit this model. Raises
    InputError if there is no such layer.
    """
    import torch

    depth = _layer_from_end(text, clip_skip)
    usable, warnings = _usable_embeddings(text, (prompt, negative), embeddings)
    texts: dict[tuple[Segment | Break, ...], list[list[list[PromptToken]]]] = {
        part.segments: [] for parsed in (prompt, negative) for part in parsed.parts
    }
    for segments, rows in texts.items():
        rows += [chunks(encoder.tokenizer, segments, usable) for encoder in text.encoders]
    count = max(len(rows) for encoders in texts.values() for rows in encoders)
    zero_negative = text.zero_empty_negative and _is_empty(negative)
    with torch.no_grad():
        states = {
            segments: _encode_text(text, rows, count, depth, usable)
            for segments, rows in texts.items()
        }
    both = []
    for parsed, zero in ((prompt, False), (negative, zero_negative)):
        contexts, pooled = zip(*(states[part.segments] for part in parsed.parts), strict=True)
        if zero:
            contexts = tuple(torch.zeros_like(c) for c in contexts)
            pooled = tuple(p if p is None else torch.zeros_like(p) for p in pooled)
        word_spans = tuple(
            find_word_spans(text.encoders[0].tokenizer, texts[part.segments][0])
            for part in parsed.parts
        )
        both.append(Conditioning(tuple(p.end for p in parsed.parts), contexts, pooled, word_spans))
    return both[0], both[1], warnings


def _is_empty(parsed: ParsedPrompt) -> bool:
    segments = [segment for part in parsed.parts for segment in part.segments]
    return not any(isinstance(segment, Break) or segment.text.strip() for segment in segments)


def _layer_from_end(text: TextEncoders, clip_skip: int | None) -> int:
    """Return which layer of the text encoder gives the prompt's states: 1 is the last loaded one.

    It follows `clip_skip`, A1111's option that also counts layers from the end; None means 1. For
    SD 2.x the result is one less, but at least 1, because these encoders are saved without their
    last layer. For SD XL it is at least 2, because SD XL never uses the last layer. Raises
    InputError if `clip_skip` is less than 1 or more than the number of layers.
    """
    skip = 1 if clip_skip is None else clip_skip
    spare = 1 if text.kind == "sd2" else 0
    layers = min(encoder.layers for encoder in text.encoders) + spare
    if not 1 <= skip <= layers:
        raise InputError(
            f"clip_skip is {skip}, and this model's text encoder has {layers} layers; it can be"
            f" 1 to {layers}."
        )
    return {"sd1": skip, "sd2": max(skip - 1, 1), "xl": max(skip, 2)}[text.kind]


def _usable_embeddings(
    text: TextEncoders, prompts: tuple[ParsedPrompt, ...], embeddings: Mapping[str, Embedding]
) -> tuple[dict[str, Embedding], list[str]]:
    """Return the textual inversions that fit all text encoders, and warnings for the others.

    There is a warning for each other one that a prompt names. Its name stays ordinary text, in
    which the shorter name of a fitting one may be recognized. embeddings and the result: by name.
    """
    widths = tuple(encoder.width for encoder in text.encoders)
    usable = {name: e for name, e in embeddings.items() if e.fit(widths) is not None}
    others = [name for name in embeddings if name not in usable]
    segments = {s for parsed in prompts for part in parsed.parts for s in part.segments}
    named_in_prompts = {
        name
        for segment in segments
        if isinstance(segment, Segment)
        for name, named in split_at_names(segment.text, others)
        if named
    }
    return usable, [
        f"The embedding {name} has width {_and(embeddings[name].widths)}, this model's text encoder"
        f" takes {_and(widths)}; it is left as plain words."
        for name in others
        if name in named_in_prompts
    ]


def _and(numbers: tuple[int, ...]) -> str:
    return " and ".join(map(str, numbers))


def _encode_text(
    text: TextEncoders,
    rows: list[list[list[PromptToken]]],
    count: int,
    depth: int,
    embeddings: Mapping[str, Embedding],
) -> tuple[Tensor, Tensor | None]:
    """Return the context (1, K, E) of one text and its pooled state (1, P), None except for XL.

    rows: for each text encoder the text's chunks of at most 75 positions, here padded with empty
    ones to `count` chunks. depth: the layer whose states are used, 1 for the last. embeddings:
    textual inversions by name.
    """
    import torch

    widths = tuple(encoder.width for encoder in text.encoders)
    vectors = {n: fitted for n, e in embeddings.items() if (fitted := e.fit(widths)) is not None}
    states, pooled = [], None
    for i, (encoder, own) in enumerate(zip(text.encoders, rows, strict=True)):
        own = own + [[]] * (count - len(own))
        ids = torch.tensor(
            [token_ids(encoder.tokenizer, row) for row in own],
            device=encoder.device or encoder.model.device,
        )
        vectors_at = [
            (number, position, vectors[entry.embedding][i][entry.vector])
            for number, row in enumerate(own)
            for position, entry in enumerate(row, 1)
            if entry.embedding is not None
        ]
        with insert_vectors(encoder.model, ids, vectors_at):
            hidden, pooled = _run(encoder, text.kind, ids, depth)
        states.append(_apply_weights(hidden, own).reshape(1, -1, hidden.shape[-1]))
    return states[0] if len(states) == 1 else torch.cat(states, dim=-1), pooled


def token_ids(tokenizer: Any, row: list[PromptToken]) -> list[int]:
    """Return the 77 CLIP token ids of a chunk: start token, the chunk's own, end token, padding."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = [tokenizer.bos_token_id, *(entry.token for entry in row), tokenizer.eos_token_id]
    return ids + [pad] * (window(tokenizer) - len(ids))


def _run(encoder: TextEncoder, kind: str, ids: Tensor, depth: int) -> tuple[Tensor, Tensor | None]:
    """Run a text encoder on n chunks; return their hidden states and the first one's pooled state.

    ids: (n, T) token ids. kind: "sd1", "sd2" or "xl". depth: the layer whose states to return, 1
    for the last. Hidden states are (n, T, E); the pooled state is (1, P), None for encoders other
    than XL's second.
    """
    if kind == "xl":
        out = encoder.model(input_ids=ids, output_hidden_states=True)
        pooled = out.text_embeds[:1] if "text_embeds" in out else None
        return out.hidden_states[-depth], pooled
    if depth == 1:
        return encoder.model(input_ids=ids).last_hidden_state, None
    out = encoder.model(input_ids=ids, output_hidden_states=True)
    norm = getattr(encoder.model, "text_model", encoder.model).final_layer_norm
    return norm(out.hidden_states[-depth]), None


def _apply_weights(states: Tensor, rows: list[list[PromptToken]]) -> Tensor:
    """Apply the prompt's word weights as A1111's emphasis "Original" does.

    Each token's state is multiplied by its weight, then the mean of each chunk is restored. states:
    (n, T, E) for n chunks. rows: their tokens. A chunk whose weights are all 1 is returned bit for
    bit. A mean near zero, as of encoders whose states are centred, is not restored: dividing by it
    would scale the chunk by noise.
    """
    import torch

    out = states
    for number, row in enumerate(rows):
        if all(entry.weight == 1 for entry in row):
            continue
        if out is states:
            out = states.clone()
        state = states[number].float()  # (T, E)
        weights = torch.ones(len(state), 1, device=state.device)
        weights[1 : len(row) + 1, 0] = torch.tensor([entry.weight for entry in row])
        weighted = state * weights
        mean = state.mean()
        ratio = float(mean / weighted.mean())
        if abs(mean) >= MIN_MEAN * state.abs().mean() and 1 / MAX_WEIGHT <= ratio <= MAX_WEIGHT:
            weighted = weighted * ratio
        out[number] = weighted.to(out)
    return out
