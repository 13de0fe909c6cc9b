"""From a graph to the compiled module's network: weights packed, operations in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixeldp_fast.errors import UnsupportedBackend
from pixeldp_fast.plan.ops import (
    Activate,
    Add,
    Affine,
    Convolution,
    Dense,
    Graph,
    Node,
    Pool,
    Shape,
    SlicePad,
)
from pixeldp_fast.plan.passes import operands

MEMORY = Path("/proc/meminfo")


def compiled(native: Any, graph: Graph, *, isa: str, fast: bool) -> Any:
    """A finished `Network` of the compiled module.

    Parameters
    ----------
    native : module
        `pixeldp_fast._native`.
    graph : Graph
    isa : str
        The instruction set whose kernels run, "" for the widest.
    fast : bool
        Whether 3x3 convolutions may go by Winograd's algorithm; otherwise every output is one plain
        sum of products.

    Raises
    ------
    UnsupportedBackend
        For what the engine has no room for, such as a kernel of more than 1024 taps.
    """
    slope, nodes = _leading_activation(graph)
    network = native.Network(_map_shape(graph.input_shape), slope, isa)
    at = [0]  # by value of the graph, the network's value
    try:
        for i, node in enumerate(graph.nodes):
            at.append(_append(network, node, at, fast) if i >= nodes else 0)
        network.finish(at[graph.output])
    except ValueError as error:
        raise UnsupportedBackend(f"native: {error}") from error
    return network


def _leading_activation(graph: Graph) -> tuple[float, int]:
    """Slope of an activation directly behind the noise, made with it, and its nodes (0 or 1)."""
    if graph.nodes and isinstance(graph.nodes[0], Activate) and graph.output != 0:
        reads = [value for node in graph.nodes for value in operands(node)]
        if reads.count(0) == 1:
            return graph.nodes[0].activation.slope, 1
    return 1.0, 0


def _map_shape(shape: Shape) -> list[int]:
    return list(shape) if len(shape) == 3 else [math.prod(shape), 1, 1]


def _append(network: Any, node: Node, at: Sequence[int], fast: bool) -> int:
    return int(_APPENDERS[type(node)](network, node, at, fast))


def _convolution(network: Any, node: Convolution, at: Sequence[int], fast: bool) -> Any:
    (top, bottom), (left, right) = node.padding
    return network.convolution(
        at[node.source],
        _floats(node.weight),
        _bias(node),
        list(node.stride),
        [top, bottom, left, right],
        list(node.dilation),
        node.groups,
        -1 if node.residual is None else at[node.residual],
        node.activation.slope,
        fast,
    )


def _dense(network: Any, node: Dense, at: Sequence[int], fast: bool) -> Any:
    """A convolution whose kernel covers the map."""
    kernel = node.weight.reshape(len(node.weight), *network.shape(at[node.source]))
    whole = Convolution(
        node.source, kernel, node.bias, residual=node.residual, activation=node.activation
    )
    return _convolution(network, whole, at, fast=False)


def _affine(network: Any, node: Affine, at: Sequence[int], fast: bool) -> Any:
    scale, shift = _floats(node.scale).tolist(), _floats(node.shift).tolist()
    return network.affine(at[node.source], scale, shift, node.activation.slope)


def _activate(network: Any, node: Activate, at: Sequence[int], fast: bool) -> Any:
    return network.affine(at[node.source], [], [], node.activation.slope)


def _add(network: Any, node: Add, at: Sequence[int], fast: bool) -> Any:
    return network.add(at[node.source], at[node.other], node.activation.slope)


def _pool(network: Any, node: Pool, at: Sequence[int], fast: bool) -> Any:
    rows, columns = ([int(n) for pair in side for n in pair] for side in (node.rows, node.columns))
    divisors = [] if node.divisors is None else [float(d) for row in node.divisors for d in row]
    return network.pool(at[node.source], rows, columns, divisors)


def _slice_pad(network: Any, node: SlicePad, at: Sequence[int], fast: bool) -> Any:
    return network.slice_pad(at[node.source], list(node.stride), node.low, node.high)


_APPENDERS: dict[type, Callable[[Any, Any, Sequence[int], bool], Any]] = {
    Convolution: _convolution,
    Dense: _dense,
    Affine: _affine,
    Activate: _activate,
    Add: _add,
    Pool: _pool,
    SlicePad: _slice_pad,
}


def _bias(node: Convolution) -> npt.NDArray[np.float32]:
    if node.bias is None:
        return np.zeros(len(node.weight), dtype=np.float32)
    return _floats(node.bias)


def _floats(tensor: Tensor) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to(torch.float32).numpy())


def check_memory(network: Any, threads: int, tile: int) -> None:
    """Refuse a network of which one tile for every thread does not fit what memory is free.

    Raises
    ------
    UnsupportedBackend
        With both numbers. Where the system does not say what is free, nothing is refused.
    """
    one = network.tile_bytes(tile)
    needed = one * threads
    available = _available_bytes()
    if available is not None and needed > available:
        raise UnsupportedBackend(
            f"native: a tile of draws takes {one >> 20} MiB, on {threads} threads "
            f"{needed >> 20} MiB, but only {available >> 20} MiB are free; use fewer threads "
            "(torch.set_num_threads) or a smaller `tile`."
        )


def _available_bytes() -> int | None:
    try:
        lines = MEMORY.read_text().splitlines()
    except OSError:
        return None
    kib = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return None if kib is None else kib * 1024
