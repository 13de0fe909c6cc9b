"""A graph as a torch module in one dtype, channels last, for torch.compile and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixeldp_fast.backends.triton import operators, tuning
from pixeldp_fast.backends.triton.convolution import ConvolutionConfig, convolution_config
from pixeldp_fast.backends.triton.segments import pixels_first
from pixeldp_fast.plan.interpret import activated
from pixeldp_fast.plan.ops import (
    Activate,
    Add,
    Affine,
    Convolution,
    Dense,
    Graph,
    Node,
    Pair,
    Pool,
    SlicePad,
)


class GraphModule(nn.Module):
    """The nodes of a graph in order, weights converted once.

    Parameters
    ----------
    graph : Graph
    dtype : torch.dtype
        Of weights and values. Affines keep float32 scales and shifts and round their result.
    device : torch.device
    for_head : bool
        Whether a map is returned as [rows, H, W, C], as the heads' kernels read it; otherwise any
        output is [rows, K] in C order.
    """

    def __init__(
        self, graph: Graph, dtype: torch.dtype, device: torch.device, *, for_head: bool = False
    ) -> None:
        super().__init__()
        self._graph = graph
        self._for_head = for_head
        self._kernels: dict[int, list[int]] = {}  # convolutions by the kernel, and how
        words = []
        for i, node in enumerate(graph.nodes):
            source = graph.shapes[node.source]
            tensors = _weights(node, source, dtype)
            config = _kernel(node, source, dtype, device)
            if config is not None:
                self._kernels[i] = operators.fields_of(config)
                words.append(tuning.described("convolution", config))
                tensors = _kernel_weights(node, dtype)
            for name, tensor in tensors.items():
                self.register_buffer(f"{name}{i}", tensor.to(device))
        self.words = "".join(f" {word} x{words.count(word)}" for word in dict.fromkeys(words))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for noisy features [rows, *input_shape], a map in channels-last memory."""
        values = [x]
        for i, node in enumerate(self._graph.nodes):
            values.append(_MEANINGS[type(node)](self, i, node, values))
        out = values[self._graph.output]
        if self._for_head and out.ndim == 4:
            return out.permute(0, 2, 3, 1).contiguous()
        return out.flatten(1).contiguous()

    def kernel(self, i: int) -> list[int] | None:
        """The configuration of node i, a convolution, where the kernel runs it."""
        return self._kernels.get(i)

    def weight(self, name: str, i: int) -> Any:
        """The converted tensor of node i, None where it has none."""
        return getattr(self, f"{name}{i}", None)


def _kernel(
    node: Node, source: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> ConvolutionConfig | None:
    """How the convolution kernel runs a node: only where the table of tunings has a line for it."""
    if not isinstance(node, Convolution) or node.groups != 1 or node.dilation != (1, 1):
        return None
    outputs, channels, *window = node.weight.shape
    shape = tuning.shape_of(*source, outputs, *window, *node.stride)
    default = convolution_config(channels, outputs, dtype)
    return tuning.listed("convolution", shape, dtype, device, default)


def _kernel_weights(node: Node, dtype: torch.dtype) -> dict[str, Tensor]:
    """A convolution's tensors as its kernel reads them."""
    assert isinstance(node, Convolution)
    weight = node.weight.detach().to(dtype).permute(0, 2, 3, 1)
    bias = weight.new_zeros(len(weight)) if node.bias is None else node.bias.detach()
    return {"weight": weight.clone(memory_format=torch.contiguous_format), "bias": bias.float()}


def _weights(node: Node, source: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    """A node's tensors as `GraphModule` keeps them."""
    found: dict[str, Tensor] = {}
    if isinstance(node, Convolution):
        weight = node.weight.detach().to(dtype)
        found["weight"] = weight.contiguous(memory_format=torch.channels_last)
    elif isinstance(node, Dense):
        found["weight"] = pixels_first(node.weight.detach(), source).to(dtype).contiguous()
    elif isinstance(node, Affine):
        for name, tensor in (("scale", node.scale), ("shift", node.shift)):
            per_channel = tensor.detach().float().reshape((-1,) + (1,) * (len(source) - 1))
            found[name] = per_channel
    elif isinstance(node, Pool) and node.divisors is not None:
        found["divisors"] = torch.tensor(node.divisors, dtype=torch.float32)
    if isinstance(node, (Convolution, Dense)) and node.bias is not None:
        found["bias"] = node.bias.detach().to(dtype)
    return {name: tensor.clone() for name, tensor in found.items()}


def _convolution(module: GraphModule, i: int, node: Convolution, values: list[Tensor]) -> Tensor:
    x = values[node.source]
    (top, bottom), (left, right) = node.padding
    kernel = module.kernel(i)
    if kernel is not None:
        made: Tensor = operators.convolve(
            _channels_last(x),
            module.weight("weight", i),
            module.weight("bias", i),
            None if node.residual is None else _channels_last(values[node.residual]),
            list(node.stride),
            [top, bottom, left, right],
            node.activation.slope,
            kernel,
        )
        return made.permute(0, 3, 1, 2)
    padding = (top, left)
    if (top, left) != (bottom, right):
        x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
    weight, bias = module.weight("weight", i), module.weight("bias", i)
    out = functional.conv2d(x, weight, bias, node.stride, padding, node.dilation, node.groups)
    return activated(node.activation, _plus(out, node.residual, values))


def _channels_last(x: Tensor) -> Tensor:
    """[rows, C, H, W] as contiguous [rows, H, W, C]; no copy of what is channels last already."""
    return x.permute(0, 2, 3, 1).contiguous()


def _dense(module: GraphModule, i: int, node: Dense, values: list[Tensor]) -> Tensor:
    x = values[node.source]
    rows = x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x
    out = functional.linear(rows, module.weight("weight", i), module.weight("bias", i))
    return activated(node.activation, _plus(out, node.residual, values))


def _affine(module: GraphModule, i: int, node: Affine, values: list[Tensor]) -> Tensor:
    x = values[node.source]
    wide = x.float() * module.weight("scale", i) + module.weight("shift", i)
    return activated(node.activation, wide).to(x.dtype)


def _add(module: GraphModule, i: int, node: Add, values: list[Tensor]) -> Tensor:
    return activated(node.activation, values[node.source] + values[node.other])


def _activate(module: GraphModule, i: int, node: Activate, values: list[Tensor]) -> Tensor:
    return activated(node.activation, values[node.source])


def _slice_pad(module: GraphModule, i: int, node: SlicePad, values: list[Tensor]) -> Tensor:
    strided = values[node.source][:, :, :: node.stride[0], :: node.stride[1]]
    return functional.pad(strided, (0, 0, 0, 0, node.low, node.high))


def _pool(module: GraphModule, i: int, node: Pool, values: list[Tensor]) -> Tensor:
    """By torch's own pooling where the windows are regular, window by window elsewhere."""
    x = values[node.source]
    divisors = module.weight("divisors", i)
    whole = len(node.rows) == len(node.columns) == 1
    grid = None if whole else regular(node, x.shape[2], x.shape[3])
    if grid is None:
        reduce = torch.amax if node.kind == "max" else torch.sum
        wide = x if node.kind == "max" else x.float()
        wide = torch.stack([reduce(wide[:, :, a:b], dim=2) for a, b in node.rows], dim=2)
        wide = torch.stack([reduce(wide[..., a:b], dim=3) for a, b in node.columns], dim=3)
    elif node.kind == "max":
        wide = functional.max_pool2d(x, *grid)
    else:
        wide = functional.avg_pool2d(x.float(), *grid, divisor_override=1)
    return wide if divisors is None else (wide / divisors).to(x.dtype)


def regular(node: Pool, height: int, width: int) -> tuple[Pair, Pair, Pair] | None:
    """(kernel, stride, padding) of a pooling as torch's functions take it, None if irregular."""
    axes = [_axis(node.rows, height), _axis(node.columns, width)]
    if axes[0] is None or axes[1] is None:
        return None
    (k, s, p), (k2, s2, p2) = axes[0], axes[1]
    return (k, k2), (s, s2), (p, p2)


def _axis(ranges: tuple[Pair, ...], size: int) -> tuple[int, int, int] | None:
    """Kernel, stride and padding along one axis."""
    if len(ranges) == 1:
        first, last = ranges[0]
        return (last, size, 0) if first == 0 else None
    stride = ranges[1][1] - ranges[0][1]
    widest = max(b - a for a, b in ranges)
    for kernel, padding in ((widest + p, p) for p in range(widest + 1)):
        if kernel >= 1 and 2 * padding <= kernel and stride >= 1:
            expected = tuple(
                (max(0, j * stride - padding), min(size, j * stride - padding + kernel))
                for j in range(len(ranges))
            )
            produced = (size + 2 * padding - kernel) // stride + 1
            if expected == ranges and produced == len(ranges):
                return kernel, stride, padding
    return None


def _plus(x: Tensor, residual: int | None, values: list[Tensor]) -> Tensor:
    return x if residual is None else x + values[residual]


_MEANINGS: dict[type, Callable[[GraphModule, int, Any, list[Tensor]], Tensor]] = {
    Convolution: _convolution,
    Dense: _dense,
    Affine: _affine,
    Add: _add,
    Activate: _activate,
    SlicePad: _slice_pad,
    Pool: _pool,
}
