"""LoHa and LoKr of LyCORIS: LoRAs whose weight differences are products of matrices.

LoHa is an elementwise product of two low-rank matrices (Hyeon-Woo et al., arXiv 2108.06098), LoKr
a Kronecker product (Yeh et al., arXiv 2309.14859). Matrices go by the names of LyCORIS: w1_a, w1_b,
t1 and so on. t1 and t2, of convolutions, are cores (r, r, kh, kw) of a Tucker decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Shape = Sequence[int]


@dataclass(frozen=True)
class Size:
    """The shape (rows, columns) of a LoHa or LoKr weight difference, and its rank.

    rank: by which alpha is divided; None for a Kronecker product of two full matrices, whose scale
    is 1.
    """

    rows: int
    columns: int
    rank: int | None


@dataclass(frozen=True)
class Product:
    """A LoHa or LoKr of one layer: the weight difference is `scale` times a product of matrices.

    kind: "LoHa" or "LoKr". tensors: the matrices by LyCORIS's names, such as "w1_a".
    """

    kind: str
    tensors: dict[str, Tensor]
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """The shape (rows, columns) of the layer's weight difference, without computing it."""
        size = PRODUCTS[self.kind].size({role: t.shape for role, t in self.tensors.items()})
        assert size is not None, "read_lora has checked the shapes"
        return size.rows, size.columns

    def matrix(self) -> Tensor:
        """Return what this LoHa or LoKr adds to the layer's weight, before the factor `scale`.

        It is a matrix (rows, columns), fp32, computed from `tensors`.
        """
        return PRODUCTS[self.kind].matrix({role: t.float() for role, t in self.tensors.items()})


@dataclass(frozen=True)
class ProductKind:
    """How to compute one LyCORIS method, LoHa or LoKr; matrices go by LyCORIS's names ("w1_a").

    size: given the matrices' shapes, returns the Size of the weight difference, or None if a matrix
    is missing or the shapes do not agree. matrix: given the matrices, returns the weight difference
    (rows, columns).
    """

    size: Callable[[Mapping[str, Shape]], Size | None]
    matrix: Callable[[Mapping[str, Tensor]], Tensor]


def _pair_size(a: Shape, b: Shape, t: Shape | None = None) -> tuple[int, int] | None:
    if not len(a) == len(b) == 2:
        return None
    if t is None:
        return (a[0], b[1]) if a[1] == b[0] else None
    agree = len(t) == 4 and tuple(t[:2]) == (a[0], b[0])
    return (a[1], b[1] * t[2] * t[3]) if agree else None


def _pair(a: Tensor, b: Tensor, t: Tensor | None = None) -> Tensor:
    import torch

    return a @ b if t is None else torch.einsum("ijkl,ip,jr->prkl", t, a, b).flatten(1)


def _loha_size(shapes: Mapping[str, Shape]) -> Size | None:
    try:
        sides = [_pair_size(*_loha_side(shapes, i)) for i in (1, 2)]
    except KeyError:
        return None
    if sides[0] is None or sides[0] != sides[1]:
        return None
    return Size(*sides[0], shapes["w1_b"][0])


def _loha(tensors: Mapping[str, Tensor]) -> Tensor:
    return _pair(*_loha_side(tensors, 1)) * _pair(*_loha_side(tensors, 2))


def _loha_side(of: Mapping, i: int) -> tuple:
    return of[f"w{i}_a"], of[f"w{i}_b"], of.get(f"t{i}")


def _lokr_size(shapes: Mapping[str, Shape]) -> Size | None:
    try:
        first, second = (_lokr_factor(shapes, i, _flat_size, _pair_size) for i in (1, 2))
    except KeyError:
        return None
    if first is None or second is None:
        return None
    small = shapes.get("w2_b", shapes.get("w1_b"))
    return Size(first[0] * second[0], first[1] * second[1], small[0] if small else None)


def _lokr(tensors: Mapping[str, Tensor]) -> Tensor:
    import torch

    first, second = (_lokr_factor(tensors, i, lambda w: w.flatten(1), _pair) for i in (1, 2))
    return torch.kron(first.contiguous(), second.contiguous())


def _lokr_factor(
    of: Mapping[str, Any], i: int, full: Callable[..., Any], pair: Callable[..., Any]
) -> Any:
    """Return factor `i` (1 or 2) of a LoKr's Kronecker product; given shapes, return its shape.

    of: the matrices, or their shapes, by LyCORIS's names. Factor 1 may be stored as one full matrix
    w1: the result is then full(w1). Or it is stored as two low-rank matrices w1_a and w1_b and an
    optional core t1: the result is then pair(w1_a, w1_b, t1 or None). Likewise for factor 2.
    """
    if f"w{i}" in of:
        return full(of[f"w{i}"])
    return pair(of[f"w{i}_a"], of[f"w{i}_b"], of.get(f"t{i}"))


def _flat_size(w: Shape) -> tuple[int, int] | None:
    if len(w) not in (2, 4):
        return None
    return w[0], w[1] * (w[2] * w[3] if len(w) == 4 else 1)


PRODUCTS = {"LoHa": ProductKind(_loha_size, _loha), "LoKr": ProductKind(_lokr_size, _lokr)}
