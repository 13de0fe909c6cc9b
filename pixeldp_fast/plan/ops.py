"""The small immutable graph that a network lowers to, for engines that do not run torch modules.

Value 0 is the input, value i + 1 the result of node i. A value is a feature map [C, H, W] or a
vector [D] per draw; the batch is not part of any shape. Engines implement these nodes and no more.
Weights have any floating dtype, those that were folded float64; an engine converts them to its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Activation:
    """x where x > 0, `slope` x elsewhere: 0 is ReLU, 1 the identity."""

    slope: float = 1.0


IDENTITY = Activation(1.0)


@dataclass(frozen=True, eq=False)
class Convolution:
    """activation(weight * x + bias + residual), zero padding.

    Parameters
    ----------
    source : int
        A value [C, H, W].
    weight : [O, C / groups, kh, kw]
    bias : [O] or None
    padding : (top, bottom), (left, right)
    residual : int or None
        A value of the result's shape, added before the activation.
    """

    source: int
    weight: Tensor
    bias: Tensor | None
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    residual: int | None = None
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class Dense:
    """activation(weight x + bias + residual); a map [C, H, W] is read in C order.

    Parameters
    ----------
    weight : [O, D]
    bias : [O] or None
    """

    source: int
    weight: Tensor
    bias: Tensor | None
    residual: int | None = None
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class Affine:
    """activation(scale x + shift), one scale and shift per channel, [C] each."""

    source: int
    scale: Tensor
    shift: Tensor
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class Add:
    """activation(a + b) of two values of one shape."""

    source: int
    other: int
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False)
class Pool:
    """The maximum, or the sum divided, over a window of pixels for every output pixel.

    Parameters
    ----------
    kind : "max" or "mean"
    rows, columns : tuple of (first, last)
        For every output row and column the half-open range of input rows and columns, inside the
        map: pixels of the padding are left out.
    divisors : tuple of tuple of int, or None
        For "mean", what the sum of each output pixel is divided by, [H', W'].
    """

    source: int
    kind: str
    rows: tuple[Pair, ...]
    columns: tuple[Pair, ...]
    divisors: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, eq=False)
class SlicePad:
    """Every `stride`-th pixel, between `low` and `high` channels of zeros."""

    source: int
    stride: Pair
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Activate:
    """The activation alone."""

    source: int
    activation: Activation


Node: TypeAlias = Convolution | Dense | Affine | Add | Pool | SlicePad | Activate


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in the order of evaluation.

    Parameters
    ----------
    shapes : tuple of shape
        Of every value: shapes[0] of the input, shapes[i + 1] of nodes[i].
    output : int
        The value whose elements, in C order, are the outputs.
    """

    nodes: tuple[Node, ...]
    shapes: tuple[Shape, ...]
    output: int

    @property
    def input_shape(self) -> Shape:
        """Of one draw's features."""
        return self.shapes[0]
