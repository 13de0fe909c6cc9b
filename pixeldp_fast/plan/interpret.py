"""What every node of a graph means, in plain torch: the definition that engines are held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pixeldp_fast.plan.ops import (
    Activate,
    Activation,
    Add,
    Affine,
    Convolution,
    Dense,
    Graph,
    Pool,
    SlicePad,
)


def interpret(graph: Graph, x: Tensor) -> Tensor:
    """The outputs of a graph, every operation in the dtype of `x`.

    Parameters
    ----------
    x : Tensor [B, *input_shape]
        Floating point; weights are converted to its dtype and device.

    Returns
    -------
    outputs : Tensor [B, K]
        The elements of the output value in C order.
    """
    values = [x]
    for node in graph.nodes:
        values.append(_MEANINGS[type(node)](node, values))
    return values[graph.output].flatten(1)


def activated(activation: Activation, x: Tensor) -> Tensor:
    """x where x > 0, `slope` x elsewhere; with slope 0, 0 also for minus infinity."""
    if activation.slope == 1:
        return x
    if activation.slope == 0:
        return functional.relu(x)
    return functional.leaky_relu(x, activation.slope)


def _convolution(node: Convolution, values: Sequence[Tensor]) -> Tensor:
    x = values[node.source]
    (top, bottom), (left, right) = node.padding
    padded = functional.pad(x, (left, right, top, bottom))
    weight, bias = _like(node.weight, x), _like(node.bias, x)
    out = functional.conv2d(
        padded, weight, bias, node.stride, dilation=node.dilation, groups=node.groups
    )
    return activated(node.activation, _plus(out, node.residual, values))


def _dense(node: Dense, values: Sequence[Tensor]) -> Tensor:
    x = values[node.source].flatten(1)
    out = functional.linear(x, _like(node.weight, x), _like(node.bias, x))
    return activated(node.activation, _plus(out, node.residual, values))


def _affine(node: Affine, values: Sequence[Tensor]) -> Tensor:
    x = values[node.source]
    channels = (-1,) + (1,) * (x.ndim - 2)
    scale, shift = (_like(t, x).reshape(channels) for t in (node.scale, node.shift))
    return activated(node.activation, x * scale + shift)


def _add(node: Add, values: Sequence[Tensor]) -> Tensor:
    return activated(node.activation, values[node.source] + values[node.other])


def _pool(node: Pool, values: Sequence[Tensor]) -> Tensor:
    x = values[node.source]  # [B, C, H, W]
    reduce = torch.amax if node.kind == "max" else torch.sum
    x = torch.stack([reduce(x[:, :, a:b], dim=2) for a, b in node.rows], dim=2)
    x = torch.stack([reduce(x[..., a:b], dim=3) for a, b in node.columns], dim=3)
    return x if node.divisors is None else x / x.new_tensor(node.divisors)


def _slice_pad(node: SlicePad, values: Sequence[Tensor]) -> Tensor:
    strided = values[node.source][:, :, :: node.stride[0], :: node.stride[1]]
    return functional.pad(strided, (0, 0, 0, 0, node.low, node.high))


def _activate(node: Activate, values: Sequence[Tensor]) -> Tensor:
    return activated(node.activation, values[node.source])


def _plus(x: Tensor, residual: int | None, values: Sequence[Tensor]) -> Tensor:
    return x if residual is None else x + values[residual]


def _like(tensor: Tensor | None, x: Tensor) -> Any:
    return None if tensor is None else tensor.detach().to(x)


_MEANINGS: dict[type, Callable[[Any, Sequence[Tensor]], Tensor]] = {
    Convolution: _convolution,
    Dense: _dense,
    Affine: _affine,
    Add: _add,
    Pool: _pool,
    SlicePad: _slice_pad,
    Activate: _activate,
}
