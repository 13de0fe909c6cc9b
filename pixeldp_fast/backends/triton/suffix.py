"""A graph as a torch module in one dtype, channels last, for torch.compile and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixeldp_fast.backends.triton import kernels
from pixeldp_fast.backends.triton.runs import Target, taken
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
from pixeldp_fast.plan.passes import last_uses


class GraphModule(nn.Module):
    """The nodes of a graph in order, weights converted once; runs that a kernel takes, by it.

    A value is kept until its last use, so that even uncompiled a tile takes what was planned for.

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
        self._runs: dict[int, tuple[int, tuple[int, ...]]] = {}  # by first node: (last, reads)
        words: list[str] = []
        i = 0
        while i < len(graph.nodes):
            found = taken(kernels.RUNS, graph, i, Target(device, dtype))
            if found is None:
                node = graph.nodes[i]
                for name, tensor in _weights(node, graph.shapes[node.source], dtype).items():
                    self.register_buffer(f"{name}{i}", tensor.to(device))
                i += 1
                continue
            run, made = found
            self.add_module(f"run{i}", made)
            self._runs[i] = run.last, run.reads
            words.append(made.words)
            i = run.last
        self.words = "".join(f" {word} x{words.count(word)}" for word in dict.fromkeys(words))
        last = last_uses(graph)
        self._dying = [[v for v in range(i + 1) if last[v] == i] for i in range(len(graph.nodes))]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for noisy features [rows, *input_shape], a map in channels-last memory."""
        values: list[Any] = [x] + [None] * len(self._graph.nodes)
        i = 0
        while i < len(self._graph.nodes):
            last, reads = self._runs.get(i, (i + 1, ()))
            if i in self._runs:
                kernel = self.get_submodule(f"run{i}")
                values[last] = _seen(kernel(*(_in_memory(values[v]) for v in reads)))
            else:
                node = self._graph.nodes[i]
                values[last] = _MEANINGS[type(node)](self, i, node, values)
            for dead in (v for j in range(i, last) for v in self._dying[j]):
                values[dead] = None
            i = last
        out: Tensor = values[self._graph.output]
        if self._for_head and out.ndim == 4:
            return out.permute(0, 2, 3, 1).contiguous()
        return out.flatten(1).contiguous()

    def weight(self, name: str, i: int) -> Any:
        """The converted tensor of node i, None where it has none."""
        return getattr(self, f"{name}{i}", None)


def _in_memory(x: Tensor) -> Tensor:
    """[rows, C, H, W] as contiguous [rows, H, W, C]; no copy of what is channels last already."""
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).contiguous()


def _seen(x: Tensor) -> Tensor:
    """The way back."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


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
    padding = (top, left)
    if (top, left) != (bottom, right):
        x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
    weight, bias = module.weight("weight", i), module.weight("bias", i)
    out = functional.conv2d(x, weight, bias, node.stride, padding, node.dilation, node.groups)
    return activated(node.activation, _plus(out, node.residual, values))


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
