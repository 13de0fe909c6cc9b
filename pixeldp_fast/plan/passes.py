"""From graph to graph: fewer nodes, the same outputs.

A pass goes through the nodes in order. Where a node and the one that made its operand become one,
the result stands at the place of the later, so that everything it reads has been computed; the
earlier is then unused and pruned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pixeldp_fast.plan.ops import (
    IDENTITY,
    Activate,
    Add,
    Affine,
    Convolution,
    Dense,
    Graph,
    Node,
)

Maker = Callable[[int], Node | None]


def optimised(graph: Graph) -> Graph:
    """The graph that engines run: affines folded into weights, sums and activations fused.

    Guarantee
        Equal outputs in exact arithmetic. Folded weights are float64, rounded once per operation.
    """
    return fuse(fold_affine(prune(graph)))


def fold_affine(graph: Graph) -> Graph:
    """Every affine directly behind a convolution, dense layer or affine, folded into it.

    Only where nothing else reads the layer's result and no residual or activation is in between.
    The scale and shift go into weight and bias in float64. An affine in front of a convolution
    stays, since zero padding is not shifted.
    """
    return _merged(graph, _folded)


def fuse(graph: Graph) -> Graph:
    """Every sum and activation that only one node feeds, made part of that node.

    A sum goes into the later of its two operands that is a convolution or dense layer, whose
    `residual` becomes the other; an activation into whatever has none yet.
    """
    return _merged(graph, _fused)


def prune(graph: Graph) -> Graph:
    """Without the nodes that the output does not depend on."""
    needed = {graph.output}
    for value in range(len(graph.nodes), 0, -1):
        if value in needed:
            needed.update(operands(graph.nodes[value - 1]))
    kept = [value for value in range(1, len(graph.nodes) + 1) if value in needed]
    renamed = {0: 0} | {value: i for i, value in enumerate(kept, start=1)}
    nodes = tuple(_renamed(graph.nodes[value - 1], renamed) for value in kept)
    shapes = (graph.shapes[0], *(graph.shapes[value] for value in kept))
    return Graph(nodes, shapes, renamed[graph.output])


def operands(node: Node) -> tuple[int, ...]:
    """The values that a node reads."""
    if isinstance(node, Add):
        return node.source, node.other
    if isinstance(node, (Convolution, Dense)) and node.residual is not None:
        return node.source, node.residual
    return (node.source,)


def last_uses(graph: Graph) -> tuple[int, ...]:
    """For every value the index of the last node that reads it: until then its memory is taken.

    The number of nodes for the output; for a value that nothing reads, the index of its own node,
    -1 for the input.
    """
    last = list(range(-1, len(graph.nodes)))
    for i, node in enumerate(graph.nodes):
        for value in operands(node):
            last[value] = i
    last[graph.output] = len(graph.nodes)
    return tuple(last)


def _merged(graph: Graph, rule: Callable[[Node, Maker], Node]) -> Graph:
    """Apply a rule to every node; it is told the maker of values with no other use.

    A merge takes the earlier node's reads over, so the counts stay true during the pass. The output
    needs no count: nodes that read it are not needed, and what they become is pruned.
    """
    counts = [0] * len(graph.shapes)
    for node in graph.nodes:
        for value in operands(node):
            counts[value] += 1
    nodes = list(graph.nodes)

    def maker(value: int) -> Node | None:
        return nodes[value - 1] if value and counts[value] == 1 else None

    for i, node in enumerate(graph.nodes):
        nodes[i] = rule(node, maker)
    return prune(replace(graph, nodes=tuple(nodes)))


def _folded(node: Node, maker: Maker) -> Node:
    if not isinstance(node, Affine):
        return node
    before = maker(node.source)
    if isinstance(before, Affine) and before.activation == IDENTITY:
        scale, shift = node.scale * before.scale, node.scale * before.shift + node.shift
        return replace(node, source=before.source, scale=scale, shift=shift)
    if isinstance(before, (Convolution, Dense)) and _is_bare(before):
        weight = before.weight.to(torch.float64)
        scale = node.scale.reshape((-1,) + (1,) * (weight.ndim - 1))
        bias = _folded_bias(before.bias, node)
        return replace(before, weight=weight * scale, bias=bias, activation=node.activation)
    return node


def _is_bare(node: Convolution | Dense) -> bool:
    return node.activation == IDENTITY and node.residual is None


def _folded_bias(bias: Tensor | None, affine: Affine) -> Tensor:
    if bias is None:
        return affine.shift
    return affine.scale * bias.to(torch.float64) + affine.shift


def _fused(node: Node, maker: Maker) -> Node:
    if isinstance(node, Add):
        first, last = sorted((node.source, node.other))
        for value, other in ((last, first), (first, last)):
            before = maker(value)
            if isinstance(before, (Convolution, Dense)) and _is_bare(before):
                return replace(before, residual=other, activation=node.activation)
    if isinstance(node, Activate):
        before = maker(node.source)
        if isinstance(before, (Convolution, Dense, Affine, Add)) and before.activation == IDENTITY:
            return replace(before, activation=node.activation)
    return node


def _renamed(node: Node, renamed: dict[int, int]) -> Node:
    if isinstance(node, Add):
        return replace(node, source=renamed[node.source], other=renamed[node.other])
    if isinstance(node, (Convolution, Dense)) and node.residual is not None:
        return replace(node, source=renamed[node.source], residual=renamed[node.residual])
    return replace(node, source=renamed[node.source])
