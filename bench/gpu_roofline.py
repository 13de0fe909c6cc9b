"""What a device could do at most, layer after layer: the sum of max(compute, memory).

Activations count once where a convolution, dense layer or pooling makes them and once where one
reads them; noise, sums, affines and activations belong to the load or the end of such a layer.
Weights are read once per tile and count for nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pixeldp_fast.plan.lower import lower
from pixeldp_fast.plan.ops import Convolution, Dense, Graph, Node, Pool
from pixeldp_fast.plan.passes import operands, optimised
from pixeldp_fast.plan.plan import Plan


@dataclass(frozen=True)
class Step:
    """One layer, per draw: operations, and elements of activations moved."""

    flop: int
    elements: int


def steps(graph: Graph) -> list[Step]:
    """The layers of a graph."""
    sizes = [math.prod(shape) for shape in graph.shapes]
    return [
        Step(flop_of(node, graph), sizes[i + 1] + sum(sizes[value] for value in operands(node)))
        for i, node in enumerate(graph.nodes)
        if isinstance(node, (Convolution, Dense, Pool))
    ]


def flop_of(node: Node, graph: Graph) -> int:
    """Two per multiply-add; padded taps count."""
    if isinstance(node, Dense):
        return 2 * node.weight.numel()
    if isinstance(node, Convolution):
        _, rows, columns = _shape_of(node, graph)
        return 2 * node.weight.numel() * rows * columns
    return 0


def _shape_of(node: Node, graph: Graph) -> tuple[int, ...]:
    return graph.shapes[graph.nodes.index(node) + 1]


def graph_of(plan: Plan) -> Graph:
    """The suffix as the engines run it."""
    return optimised(lower(plan.suffix, plan.noise_shape, part="suffix"))


def flop(graph: Graph) -> int:
    """Of one draw."""
    return sum(step.flop for step in steps(graph))


def megabytes(graph: Graph, itemsize: int) -> float:
    """Moved per draw."""
    return sum(step.elements for step in steps(graph)) * itemsize / 1e6


def serial(graph: Graph, itemsize: int, rate: float, bandwidth: float) -> float:
    """Draws per second at most, one layer after the other.

    Parameters
    ----------
    itemsize : int
        Bytes of an activation.
    rate, bandwidth : float
        Operations and bytes per second.
    """
    seconds = sum(max(s.flop / rate, s.elements * itemsize / bandwidth) for s in steps(graph))
    return 1 / seconds
