"""A graph in the making: the operands of the rules that lower, and the checks they share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor

from pixeldp_fast.plan.ops import IDENTITY, Activate, Graph, Node, Shape


class Refused(Exception):
    """Why one operation does not lower; collected, and raised as one `UnsupportedModel`."""


class Opaque(Enum):
    """What stands for a result that is no features: a size, or one refused before."""

    SIZE = auto()
    REFUSED = auto()


@dataclass(frozen=True)
class Operand:
    """Features: a value of the graph, and the shape in which the module sees its elements.

    The shapes differ behind a flatten or reshape, which keep the C order and so are no nodes.
    """

    value: int
    shape: Shape


@dataclass(frozen=True, eq=False)
class Constant:
    """A parameter, a buffer, or a tensor computed from such alone."""

    tensor: Tensor
    name: str


class Builder:
    """The nodes lowered so far."""

    def __init__(self, input_shape: Shape) -> None:
        self.nodes: list[Node] = []
        self.shapes: list[Shape] = [input_shape]

    def emit(self, node: Node, shape: Shape) -> int:
        """Append a node; its value."""
        self.nodes.append(node)
        self.shapes.append(shape)
        return len(self.nodes)

    def stand_in(self, shape: Shape) -> Operand:
        """Features in place of a refused result, so that what reads them is still checked."""
        return Operand(self.emit(Activate(0, IDENTITY), shape), shape)

    def graph(self, output: Operand) -> Graph:
        """What was built."""
        return Graph(tuple(self.nodes), tuple(self.shapes), output.value)

    def maker(self, value: int) -> Node | None:
        """The node behind a value; None for the input."""
        return self.nodes[value - 1] if value else None

    def map_of(self, x: Any) -> int:
        """The value of a feature map; refuses vectors and reshaped features."""
        operand = features(x)
        if len(operand.shape) != 3:
            raise Refused(f"needs a feature map [C, H, W], got {list(operand.shape)}")
        own = self.shapes[operand.value]
        if operand.shape != own:
            raise Refused(f"reads features {list(own)} reshaped to {list(operand.shape)}")
        return operand.value

    def channels_of(self, x: Operand) -> int:
        """How many channels features have; refuses where a reshape has mixed them with pixels."""
        own = self.shapes[x.value]
        if x.shape not in (own, own[:1]) or math.prod(x.shape) != math.prod(own):
            raise Refused(f"acts per channel on {list(own)} reshaped to {list(x.shape)}")
        return own[0]

    def per_channel(self, x: Operand, constant: Any) -> Tensor:
        """A number or tensor that broadcasts over all but the channels, as float64 [C]."""
        channels = self.channels_of(x)
        if not isinstance(constant, Constant):
            if isinstance(constant, bool) or not isinstance(constant, (int, float)):
                raise Refused("combines the features with what is neither constant nor features")
            return finite(torch.full((channels,), float(constant), dtype=torch.float64), "constant")
        tensor = tensor_of(constant).to(torch.float64)
        rank = len(x.shape)
        aligned = (1,) * (rank + 1 - tensor.ndim) + tuple(tensor.shape)  # [B, C, ...]
        if len(aligned) != rank + 1 or aligned[0] != 1 or aligned[1] not in (1, channels):
            raise Refused(f"its constant {list(tensor.shape)} is not one value per channel")
        if math.prod(aligned[2:]) != 1:
            raise Refused(f"its constant {list(tensor.shape)} differs from pixel to pixel")
        return tensor.reshape(-1).expand(channels).clone()


def features(x: Any) -> Operand:
    """The operand; refuses constants and sizes."""
    if not isinstance(x, Operand):
        raise Refused("acts on something other than the features")
    return x


def vector(x: Any) -> Operand:
    """Features that the module sees as one vector."""
    operand = features(x)
    if len(operand.shape) != 1:
        raise Refused(f"needs a vector [D], got {list(operand.shape)}")
    return operand


def tensor_of(constant: Any) -> Tensor:
    """The tensor of a constant, by reference; refuses integers and what is not finite."""
    if not isinstance(constant, Constant):
        raise Refused("its weights depend on the input")
    if not constant.tensor.is_floating_point():
        raise Refused(f"its {constant.name} holds {constant.tensor.dtype}, not real numbers")
    return finite(constant.tensor, constant.name)


def optional_tensor_of(constant: Any) -> Tensor | None:
    """`tensor_of`, or None."""
    return None if constant is None else tensor_of(constant)


def finite(tensor: Tensor, name: str) -> Tensor:
    """The tensor; refuses NaN and infinite values, since engines reorder sums."""
    if not bool(torch.isfinite(tensor).all()):
        raise Refused(f"its {name} holds NaN or infinite values")
    return tensor
