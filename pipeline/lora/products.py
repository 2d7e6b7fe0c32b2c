"""LoHa and LoKr of LyCORIS: weight differences that are products of matrices.

LoHa is an elementwise product of two low-rank matrices (Hyeon-Woo et al., arXiv 2108.06098), LoKr
a Kronecker product (Yeh et al., arXiv 2309.14859). Shapes are lists or tensors' sizes; t, where
a convolution has it, is the core (r, r, kh, kw) of a Tucker decomposition.
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
    """Shape of the multiplied-out difference; rank None where alpha is not divided by one."""

    rows: int
    columns: int
    rank: int | None


@dataclass(frozen=True)
class Product:
    """The weight difference of one layer: `scale` times the product that `kind` names."""

    kind: str
    tensors: dict[str, Tensor]
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of `matrix`."""
        size = PRODUCTS[self.kind].size({role: t.shape for role, t in self.tensors.items()})
        assert size is not None, "read_lora has checked the shapes"
        return size.rows, size.columns

    def matrix(self) -> Tensor:
        """Return the product, (rows, columns) in fp32."""
        return PRODUCTS[self.kind].matrix({role: t.float() for role, t in self.tensors.items()})


@dataclass(frozen=True)
class ProductKind:
    """How a product is computed, from its matrices by role.

    size: of the shapes alone; None where they do not agree or one is missing.
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
    """Return factor `i`, which a file holds as it is or as two matrices of low rank."""
    if f"w{i}" in of:
        return full(of[f"w{i}"])
    return pair(of[f"w{i}_a"], of[f"w{i}_b"], of.get(f"t{i}"))


def _flat_size(w: Shape) -> tuple[int, int] | None:
    if len(w) not in (2, 4):
        return None
    return w[0], w[1] * (w[2] * w[3] if len(w) == 4 else 1)


PRODUCTS = {"LoHa": ProductKind(_loha_size, _loha), "LoKr": ProductKind(_lokr_size, _lokr)}
