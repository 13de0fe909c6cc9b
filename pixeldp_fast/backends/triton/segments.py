"""What runs where: the noise with what directly follows it, the network, and the counted head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import torch
from torch import Tensor

from pixeldp_fast.plan.ops import (
    IDENTITY,
    Activate,
    Affine,
    Dense,
    Graph,
    Node,
    Pool,
)
from pixeldp_fast.plan.passes import last_uses, operands, prune


@dataclass(frozen=True, eq=False)
class Prologue:
    """slope-activated(scale y + shift) of the noisy features y, made where the noise is made.

    Parameters
    ----------
    scale, shift : [C] or None
        Any floating dtype; for features that are no map, one per coordinate.
    slope : float
        1 is the identity.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    slope: float = 1.0


@dataclass(frozen=True, eq=False)
class PoolHead:
    """The mean over pixels, then one dense layer.

    Parameters
    ----------
    pixels : int
        1 for a dense layer alone, whose columns are then in the order [H, W, C] of what it reads.
    weight : [K, C]
    bias : [K]
    """

    pixels: int
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class DenseHead:
    """Two dense layers; columns of the first in the order [H, W, C] of what it reads."""

    hidden: tuple[Tensor, Tensor]  # weight [H, D], bias [H]
    slope: float
    last: tuple[Tensor, Tensor]  # weight [K, H], bias [K]


@dataclass(frozen=True, eq=False)
class Chain:
    """A network of dense layers alone, the first reading the noise in C order.

    Parameters
    ----------
    layers : tuple of (weight [out, in], bias [out])
    slopes : tuple of float
        Of the activation behind every layer but the last.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    slopes: tuple[float, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs of the first layer, then outputs of every layer."""
        return (self.layers[0][0].shape[1], *(len(weight) for weight, _ in self.layers))


Head = PoolHead | DenseHead


def leading(graph: Graph) -> int:
    """Nodes at the beginning that a prologue takes: 1 for an affine or activation that alone reads
    the noisy features, else 0."""
    first = _maker(graph, 1) if graph.nodes else None
    alone = _reads(graph, 0) == 1 and graph.output != 0
    return int(isinstance(first, (Affine, Activate)) and first.source == 0 and alone)


def prologue_of(nodes: Sequence[Node]) -> Prologue:
    """What these nodes, `leading` ones, do."""
    if not nodes:
        return Prologue()
    (first,) = nodes
    assert isinstance(first, (Affine, Activate))
    if isinstance(first, Affine):
        return Prologue(first.scale, first.shift, first.activation.slope)
    return Prologue(slope=first.activation.slope)


def split_head(graph: Graph, *, two_layers: bool) -> tuple[Graph, Head | None]:
    """The graph in front of a head that has a kernel of its own, and that head.

    `two_layers` says whether the layer before the last may be part of it.
    """
    last = _maker(graph, graph.output)
    if not _is_plain(last) or last.activation != IDENTITY:
        return graph, None
    source, shape = last.source, graph.shapes[last.source]
    before = _maker(graph, source) if _reads(graph, source) == 1 else None
    head: Head
    if isinstance(before, Pool) and _is_global_mean(before, graph.shapes[before.source]):
        _, height, width = graph.shapes[before.source]
        head, source = PoolHead(height * width, last.weight, bias_of(last)), before.source
    elif two_layers and _is_plain(before):
        first = pixels_first(before.weight, graph.shapes[before.source])
        slope = before.activation.slope
        head = DenseHead((first, bias_of(before)), slope, (last.weight, bias_of(last)))
        source = before.source
    else:
        head = PoolHead(1, pixels_first(last.weight, shape), bias_of(last))
    return prune(replace(graph, output=source)), head


def as_chain(graph: Graph) -> Chain | None:
    """The graph as a chain of dense layers, if it is nothing else."""
    layers: list[Dense] = []
    for i, node in enumerate(graph.nodes):
        if not _is_plain(node) or node.source != i:
            return None
        layers.append(node)
    if not layers or graph.output != len(layers) or layers[-1].activation != IDENTITY:
        return None
    slopes = tuple(node.activation.slope for node in layers[:-1])
    return Chain(tuple((node.weight, bias_of(node)) for node in layers), slopes)


def pixels_first(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A dense layer's weight [O, D] with columns for [H, W, C] in place of [C, H, W]."""
    if len(shape) != 3:
        return weight
    return weight.reshape(-1, *shape).permute(0, 2, 3, 1).flatten(1)


def bias_of(node: Dense) -> Tensor:
    """The bias, zeros where there is none."""
    return node.weight.new_zeros(len(node.weight)) if node.bias is None else node.bias


def peak_elements(graph: Graph) -> int:
    """The most elements of values, per draw, that are needed at one time."""
    last, sizes = last_uses(graph), [torch.Size(shape).numel() for shape in graph.shapes]
    live = [sizes[0]]
    for i in range(len(graph.nodes)):
        live.append(sum(sizes[v] for v in range(i + 2) if last[v] >= i))
    return max(live)


def _maker(graph: Graph, value: int) -> Node | None:
    return graph.nodes[value - 1] if value else None


def _reads(graph: Graph, value: int) -> int:
    return [v for node in graph.nodes for v in operands(node)].count(value)


def _is_plain(node: Node | None) -> TypeGuard[Dense]:
    return isinstance(node, Dense) and node.residual is None


def _is_global_mean(node: Pool, shape: tuple[int, ...]) -> bool:
    _, height, width = shape
    whole = node.rows == ((0, height),) and node.columns == ((0, width),)
    return whole and node.kind == "mean" and node.divisors == ((height * width,),)
