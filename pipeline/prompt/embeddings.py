"""Textual inversion (Gal et al., arXiv 2208.01618): words whose token vectors come from a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, short
from ..model_files.safetensors_header import read_header

if TYPE_CHECKING:
    from torch import Tensor

MAX_VECTORS = 300  # of one embedding: four chunks of 75
MAX_WIDTH = 8192  # numbers in one vector
FLOATS = ("F16", "BF16", "F32", "F64")  # dtypes as safetensors names them
XL = ("clip_l", "clip_g")  # tensors of a Stable Diffusion XL embedding


@dataclass(frozen=True, eq=False)
class Embedding:
    """A textual inversion: a word of the prompt, and the vectors that replace its tokens.

    name: the word. vectors: one tensor (n, E) for each text encoder that it was trained for, fp32
    on the CPU.
    """

    name: str
    vectors: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """The number n of vectors, each of which takes the place of one token."""
        return self.vectors[0].shape[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """The embedding size E of each text encoder that it was trained for."""
        return tuple(v.shape[1] for v in self.vectors)

    def fit(self, widths: tuple[int, ...]) -> tuple[Tensor, ...] | None:
        """Return the vectors, (n, E) for each text encoder of a model; None if they do not fit.

        widths: the embedding size E of each of the model's text encoders.
        """
        if self.widths == widths:
            return self.vectors
        of = dict(zip(self.widths, self.vectors, strict=True))
        return tuple(of[w] for w in widths) if set(widths) <= of.keys() else None


def read_embedding(path: str | os.PathLike) -> Embedding:
    """Read a textual inversion from a safetensors file; its name is the file's without the suffix.

    Formats: a tensor `emb_params` (A1111, kohya), `clip_l` and `clip_g` (Stable Diffusion XL), or a
    single tensor of any name (diffusers). Raises InputError for anything else.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    header = read_header(path).tensors
    shown = short(path.name)
    names: tuple[str, ...] = XL if header.keys() >= set(XL) else ("emb_params",)
    if len(header) == 1:
        names = tuple(header)
    if not header.keys() >= set(names):
        raise InputError(
            f"{shown} is no textual inversion embedding: it holds {len(header):,} tensors, and such"
            " a file holds emb_params, clip_l and clip_g, or one tensor alone."
        )
    shapes = [_shape(header[name], name, shown) for name in names]
    if len({count for count, _ in shapes}) > 1:
        raise InputError(
            f"{shown}: clip_l has {shapes[0][0]} vectors and clip_g {shapes[1][0]}; an embedding"
            " has as many for both text encoders."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = [file.get_tensor(name).float() for name in names]
    except (OSError, SafetensorError) as error:
        raise InputError(f"{shown} cannot be read: {short(error)}.") from None
    vectors = tuple(t.reshape(shape) for t, shape in zip(tensors, shapes, strict=True))
    for name, tensor in zip(names, vectors, strict=True):
        if not torch.isfinite(tensor).all():
            raise InputError(f"{shown}: {short(name)} holds values that are not finite.")
    return Embedding(path.stem, vectors)


def _shape(info: dict, name: str, shown: str) -> tuple[int, int]:
    """Return the shape (n, E) of a textual inversion's tensor, from its entry in the file's header.

    info: {"dtype": "F16", "shape": [...]}; (E,) counts as (1, E). name: the tensor's, shown: the
    file's, for the message. Raises InputError where it is of another type or shape.
    """
    shape = info["shape"]
    count, width = shape if len(shape) == 2 else (1, *shape) if len(shape) == 1 else (0, 0)
    if info["dtype"] not in FLOATS or not 0 < count <= MAX_VECTORS or not 0 < width <= MAX_WIDTH:
        raise InputError(
            f"{shown} is no textual inversion embedding: {short(name)} is {info['dtype']}"
            f" {short(shape)}, and vectors are floats of shape (n, width), n from 1 to"
            f" {MAX_VECTORS}."
        )
    return count, width


def split_at_names(text: str, names: Iterable[str]) -> list[tuple[str, bool]]:
    """Find textual inversions in `text`: (name, True) for each, (text, False) between them.

    names: those of the textual inversions. Case is ignored, and a name is returned as spelled in
    `names`. It counts only as a whole word: no letter, digit or _ may stand beside it. Where two
    names match, the longer one counts.
    """
    ordered = sorted(filter(None, names), key=len, reverse=True)
    if not ordered:
        return [(text, False)]
    out = []
    end = 0
    either = "|".join(f"({re.escape(name)})" for name in ordered)
    for match in re.finditer(rf"(?<!\w)(?:{either})(?!\w)", text, re.IGNORECASE):
        out += [(text[end : match.start()], False), (ordered[(match.lastindex or 1) - 1], True)]
        end = match.end()
    return [(piece, named) for piece, named in [*out, (text[end:], False)] if piece]


@contextmanager
def insert_vectors(
    model: Any, ids: Tensor, vectors: list[tuple[int, int, Tensor]]
) -> Iterator[None]:
    """Make a CLIP text model use given vectors in place of token embeddings, as a context manager.

    So a textual inversion takes part in the prompt. Inside the `with`, calling `model` with this
    very tensor `ids` (B, T) uses the vector (E,) of each (batch index, token position, vector) in
    `vectors`. Calls with other tensors are not affected.
    """
    if not vectors:
        yield
        return

    def replace_rows(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if args[0].data_ptr() != ids.data_ptr():
            return None
        output = output.clone()
        for row, position, vector in vectors:
            output[row, position] = vector.to(output)
        return output

    hook = model.get_input_embeddings().register_forward_hook(replace_rows)
    try:
        yield
    finally:
        hook.remove()
