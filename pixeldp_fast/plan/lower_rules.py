"""How each traced operation becomes a node: a table from ATen overloads to small functions.

A rule receives the builder, the result's shape for one example, and the operation's arguments by
the names of its schema, features first as `x`; it returns the value that holds the result.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from pixeldp_fast.plan.builder import (
    Builder,
    Operand,
    Refused,
    features,
    finite,
    optional_tensor_of,
    tensor_of,
    vector,
)
from pixeldp_fast.plan.ops import (
    Activate,
    Activation,
    Add,
    Affine,
    Convolution,
    Dense,
    Pair,
    Shape,
    SlicePad,
)
from pixeldp_fast.plan.pooling import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    max_pool,
    mean,
    pair,
)

Rule = Callable[..., int]


def _convolution(
    build: Builder,
    shape: Shape,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> int:
    source = build.map_of(x)
    kernel = tensor_of(weight)
    dilation = pair(dilation)
    sides = _sides(padding, (kernel.shape[2], kernel.shape[3]), dilation)
    node = Convolution(
        source, kernel, optional_tensor_of(bias), pair(stride), sides, dilation, int(groups)
    )
    return build.emit(node, shape)


def _sides(padding: Any, kernel: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """Zeros (top, bottom), (left, right); of an odd number, torch's "same" puts more behind."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (total[0] // 2, -(-total[0] // 2)), (total[1] // 2, -(-total[1] // 2))
    rows, columns = pair(padding)
    return (rows, rows), (columns, columns)


def _dense(build: Builder, shape: Shape, x: Any, weight: Any, bias: Any) -> int:
    source = vector(x).value
    return build.emit(Dense(source, tensor_of(weight), optional_tensor_of(bias)), shape)


def _batch_norm(
    build: Builder,
    shape: Shape,
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    eps: float,
    **unused: Any,
) -> int:
    if training or running_mean is None or running_var is None:
        raise Refused("uses the statistics of the batch; call .eval() and keep running statistics")
    x = features(x)
    build.channels_of(x)
    mean, variance = (tensor_of(t).to(torch.float64) for t in (running_mean, running_var))
    if not bool((variance + eps > 0).all()):
        raise Refused("its running variance plus eps is not above 0")
    scale = (
        (variance + eps).rsqrt() if weight is None else tensor_of(weight) / (variance + eps).sqrt()
    )
    shift = -mean * scale if bias is None else tensor_of(bias) - mean * scale
    return _affine(build, x, scale, shift)


def _affine(build: Builder, x: Operand, scale: Any, shift: Any) -> int:
    node = Affine(x.value, finite(scale, "scale"), finite(shift, "shift"))
    return build.emit(node, build.shapes[x.value])


def _linear(build: Builder, x: Operand, scale: Any, shift: Any) -> int:
    """scale x + shift of numbers or constants."""
    return _affine(build, x, build.per_channel(x, scale), build.per_channel(x, shift))


def _add(build: Builder, shape: Shape, x: Any, other: Any, alpha: float = 1) -> int:
    if isinstance(x, Operand) and isinstance(other, Operand):
        return _sum(build, x, other, alpha)
    if isinstance(x, Operand):
        return _affine(build, x, build.per_channel(x, 1), alpha * build.per_channel(x, other))
    return _linear(build, features(other), alpha, x)


def _sum(build: Builder, x: Operand, other: Operand, alpha: float) -> int:
    if alpha != 1:
        raise Refused("scales what it adds; multiply by a constant first")
    same = build.shapes[x.value] == build.shapes[other.value]
    if x.shape != other.shape or not same:
        raise Refused(f"adds features of shapes {list(x.shape)} and {list(other.shape)}")
    return build.emit(Add(x.value, other.value), build.shapes[x.value])


def _subtract(build: Builder, shape: Shape, x: Any, other: Any, alpha: float = 1) -> int:
    if isinstance(x, Operand) and isinstance(other, Operand):
        raise Refused("subtracts features from features")
    if isinstance(x, Operand):
        return _affine(build, x, build.per_channel(x, 1), -alpha * build.per_channel(x, other))
    return _linear(build, features(other), -alpha, x)


def _subtract_from(build: Builder, shape: Shape, x: Any, other: Any, alpha: float = 1) -> int:
    return _subtract(build, shape, other, x, alpha)


def _multiply(build: Builder, shape: Shape, x: Any, other: Any) -> int:
    if isinstance(x, Operand) and isinstance(other, Operand):
        raise Refused("multiplies features by features")
    if not isinstance(x, Operand):
        x, other = features(other), x
    return _linear(build, x, other, 0)


def _divide(build: Builder, shape: Shape, x: Any, other: Any) -> int:
    if isinstance(other, Operand):
        raise Refused("divides by features")
    x = features(x)
    return _affine(build, x, 1 / build.per_channel(x, other), build.per_channel(x, 0))


def _negate(build: Builder, shape: Shape, x: Any) -> int:
    return _linear(build, features(x), -1, 0)


def _relu(build: Builder, shape: Shape, x: Any) -> int:
    return _leaky_relu(build, shape, x, 0.0)


def _leaky_relu(build: Builder, shape: Shape, x: Any, negative_slope: float) -> int:
    value = features(x).value
    return build.emit(Activate(value, Activation(float(negative_slope))), build.shapes[value])


def _slice(build: Builder, shape: Shape, x: Any, dim: int, start: Any, end: Any, step: int) -> int:
    """Every `step`-th row or column; or everything, along any dimension."""
    operand = features(x)
    if shape == operand.shape and step == 1:
        return operand.value
    source = build.map_of(operand)
    dim, size = dim % 4, (0, *operand.shape)[dim]
    if dim not in (2, 3) or start not in (None, 0) or not (end is None or end >= size):
        raise Refused("cuts a part out; only every n-th row or column from the first is covered")
    return _slice_pad(build, shape, source, (step, 1) if dim == 2 else (1, step), 0, 0)


def _pad(
    build: Builder, shape: Shape, x: Any, pad: Any, value: Any = None, mode: str = "constant"
) -> int:
    source = build.map_of(x)
    pixels, channels, rest = list(pad[:4]), list(pad[4:6]) or [0, 0], pad[6:]
    if mode != "constant" or (value or 0) != 0 or any(pixels) or any(rest) or min(channels) < 0:
        raise Refused("pads other than by channels of zeros")
    return _slice_pad(build, shape, source, (1, 1), channels[0], channels[1])


def _slice_pad(build: Builder, shape: Shape, source: int, stride: Pair, low: int, high: int) -> int:
    """Slices and pads in a row are one node; the one in between is pruned if nothing reads it."""
    before = build.maker(source)
    if isinstance(before, SlicePad):
        stride = (stride[0] * before.stride[0], stride[1] * before.stride[1])
        source, low, high = before.source, low + before.low, high + before.high
    return build.emit(SlicePad(source, stride, low, high), shape)


def _reshape(build: Builder, shape: Shape, /, x: Any, **unused: Any) -> int:
    operand = features(x)
    if math.prod(shape) != math.prod(operand.shape):
        raise Refused(f"takes a part of {list(operand.shape)}")
    return operand.value


def _dropout(build: Builder, shape: Shape, x: Any, p: float, train: bool) -> int:
    if train and p > 0:
        raise Refused("drops at random; call .eval()")
    return features(x).value


def _first_result(build: Builder, shape: Shape, x: Any, index: int) -> int:
    if index != 0:
        raise Refused("reads the positions of maxima")
    return features(x).value


aten = torch.ops.aten

# Results that may share memory with their argument.
ALIASES: dict[Any, Rule] = {
    aten.alias.default: _reshape,
    aten.contiguous.default: _reshape,
    aten.detach.default: _reshape,
    aten.dropout.default: _dropout,
    aten.dropout_.default: _dropout,
    aten.feature_dropout.default: _dropout,
    aten.alpha_dropout.default: _dropout,
    aten.feature_alpha_dropout.default: _dropout,
    aten.flatten.using_ints: _reshape,
    aten.reshape.default: _reshape,
    aten.select.int: _reshape,
    aten.slice.Tensor: _slice,
    aten.squeeze.default: _reshape,
    aten.squeeze.dim: _reshape,
    aten.squeeze.dims: _reshape,
    aten.to.device: _reshape,
    aten.to.dtype: _reshape,
    aten.to.dtype_layout: _reshape,
    aten.unflatten.int: _reshape,
    aten.unsqueeze.default: _reshape,
    aten.view.default: _reshape,
}
RULES: dict[Any, Rule] = ALIASES | {
    operator.getitem: _first_result,
    aten.adaptive_avg_pool2d.default: adaptive_average_pool,
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.add.Scalar: _add,
    aten.add.Tensor: _add,
    aten.add_.Scalar: _add,
    aten.add_.Tensor: _add,
    aten.avg_pool2d.default: average_pool,
    aten.batch_norm.default: _batch_norm,
    aten.clone.default: _reshape,
    aten.constant_pad_nd.default: _pad,
    aten.conv2d.default: _convolution,
    aten.conv2d.padding: _convolution,
    aten.div.Scalar: _divide,
    aten.div.Tensor: _divide,
    aten.div_.Scalar: _divide,
    aten.div_.Tensor: _divide,
    aten.leaky_relu.default: _leaky_relu,
    aten.leaky_relu_.default: _leaky_relu,
    aten.linear.default: _dense,
    aten.max_pool2d.default: max_pool,
    aten.mean.dim: mean,
    aten.mul.Scalar: _multiply,
    aten.mul.Tensor: _multiply,
    aten.mul_.Scalar: _multiply,
    aten.mul_.Tensor: _multiply,
    aten.neg.default: _negate,
    aten.neg_.default: _negate,
    aten.pad.default: _pad,
    aten.relu.default: _relu,
    aten.relu_.default: _relu,
    aten.rsub.Scalar: _subtract_from,
    aten.rsub.Tensor: _subtract_from,
    aten.sub.Scalar: _subtract,
    aten.sub.Tensor: _subtract,
    aten.sub_.Scalar: _subtract,
    aten.sub_.Tensor: _subtract,
}
SIZE = aten.sym_size.int
