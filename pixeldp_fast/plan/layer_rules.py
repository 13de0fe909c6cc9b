"""What each accepted layer does to shapes and to distances: one rule per class.

A rule checks the layer and returns its output shape and a function that computes some of its
Lipschitz constants, from above. Adding a layer is writing its rule and its line in `RULES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from pixeldp_fast import rounding
from pixeldp_fast.plan.layer_checks import exact, refuse
from pixeldp_fast.plan.operator_norms import (
    Bounds,
    convolution_norms,
    dense_norms,
    largest_overlap,
)
from pixeldp_fast.types import Norm

Shape = tuple[int, ...]
Outcome = tuple[Shape, Callable[[], Bounds]]
Rule = Callable[[Any, str, Shape], Outcome]


def _diagonal(factor: float) -> Bounds:
    """A map that moves each coordinate on its own, by at most `factor` times as much."""
    return {(r, r): factor for r in Norm}


def _elementwise(module: nn.Module, where: str, shape: Shape) -> Outcome:
    return shape, partial(_diagonal, 1.0)


def _leaky_relu(module: nn.LeakyReLU, where: str, shape: Shape) -> Outcome:
    if not abs(module.negative_slope) <= 1:
        refuse(module, where, f"its slope must lie in [-1, 1], got {module.negative_slope}.")
    return shape, partial(_diagonal, 1.0)


def _flatten(module: nn.Flatten, where: str, shape: Shape) -> Outcome:
    if module.start_dim != 1 or module.end_dim not in (-1, len(shape)):
        dims = f"{module.start_dim} to {module.end_dim}"
        refuse(module, where, f"it must flatten all but the batch (1 to -1), got {dims}.")
    return (math.prod(shape),), partial(_diagonal, 1.0)


def _linear(module: nn.Linear, where: str, shape: Shape) -> Outcome:
    weight = exact(module, "weight", where)
    if module.bias is not None:
        exact(module, "bias", where)
    if shape != weight.shape[1:]:
        expected = f"a flat input of {weight.shape[1]} coordinates"
        refuse(module, where, f"it needs {expected}, got {shape}; add a Flatten before it.")
    return (weight.shape[0],), partial(dense_norms, weight)


def _convolution(module: nn.Conv2d, where: str, shape: Shape) -> Outcome:
    if module.padding_mode != "zeros":
        mode = module.padding_mode
        refuse(module, where, f"padding_mode {mode!r} repeats pixels; only 'zeros' is bounded.")
    weight = exact(module, "weight", where)
    if module.bias is not None:
        exact(module, "bias", where)
    stride, dilation = _pair(module.stride), _pair(module.dilation)
    channels = weight.shape[1] * module.groups
    if len(shape) != 3 or shape[0] != channels:
        refuse(module, where, f"it needs an input [{channels}, H, W], got {shape}.")
    reach = [(k - 1) * e for k, e in zip(weight.shape[2:], dilation, strict=True)]
    if isinstance(module.padding, str):
        added = reach if module.padding == "same" else [0, 0]
    else:
        added = [2 * p for p in _pair(module.padding)]
    rooms = [n + a - r for n, a, r in zip(shape[1:], added, reach, strict=True)]
    sizes = (-(-room // s) for room, s in zip(rooms, stride, strict=True))
    output = _checked_output(module, where, shape, (weight.shape[0], *sizes))
    size = (shape[1], shape[2])
    layout: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": module.groups}
    return output, partial(convolution_norms, weight, size, **layout)


def _batch_norm(module: Any, where: str, shape: Shape) -> Outcome:
    if module.training or module.running_mean is None or module.running_var is None:
        reason = "its scale depends on the other examples of the batch"
        refuse(module, where, f"{reason}; call .eval() and keep running statistics.")
    variance = exact(module, "running_var", where) + module.eps
    exact(module, "running_mean", where)
    if module.bias is not None:
        exact(module, "bias", where)
    ranks = (3,) if isinstance(module, nn.BatchNorm2d) else (1, 2)
    if len(shape) not in ranks or shape[0] != variance.size:
        refuse(module, where, f"it has {variance.size} channels and cannot take {shape}.")
    if not (variance > 0).all():
        refuse(module, where, "its running variance plus eps must be above 0.")
    scale = 1.0 if module.weight is None else np.abs(exact(module, "weight", where))
    gain = np.nextafter(scale / np.sqrt(variance), np.inf) * (scale != 0)
    return shape, partial(_diagonal, float(rounding.up(gain.max())))


def _average_pool(module: nn.AvgPool2d, where: str, shape: Shape) -> Outcome:
    window, stride, padding = _windows(module, where, shape)
    if module.ceil_mode or module.divisor_override is not None:
        refuse(module, where, "ceil_mode and divisor_override change the weights of its mean.")
    if any(padding) and not module.count_include_pad:
        refuse(module, where, "count_include_pad=False weights the border more; set it to True.")
    output = _pooled(shape, window, stride, padding, ceil=False)

    def bounds() -> Bounds:  # every channel is the same convolution with equal weights
        sums = convolution_norms(np.ones((1, 1, *window)), (shape[1], shape[2]), stride=stride)
        return {pair: float(rounding.up(norm / math.prod(window))) for pair, norm in sums.items()}

    return _checked_output(module, where, shape, output), bounds


def _max_pool(module: nn.MaxPool2d, where: str, shape: Shape) -> Outcome:
    """An output moves by at most the largest move in its window, so r to r by shared^(1/r)."""
    window, stride, padding = _windows(module, where, shape)
    if _pair(module.dilation) != (1, 1) or module.return_indices:
        refuse(module, where, "dilation and return_indices are not covered by its bound.")
    output = _pooled(shape, window, stride, padding, ceil=module.ceil_mode)
    shared = largest_overlap(window[0], stride[0]) * largest_overlap(window[1], stride[1])
    root = 1.0 if shared == 1 else float(rounding.up(math.sqrt(shared)))
    bounds = {
        (Norm.ONE, Norm.ONE): float(shared),
        (Norm.TWO, Norm.TWO): root,
        (Norm.INF, Norm.INF): 1.0,
    }
    return _checked_output(module, where, shape, output), lambda: bounds


def _windows(module: Any, where: str, shape: Shape) -> tuple[tuple[int, int], ...]:
    if len(shape) != 3:
        refuse(module, where, f"it needs an input [C, H, W], got {shape}.")
    return _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)


def _pooled(
    shape: Shape, window: Shape, stride: Shape, padding: Shape, *, ceil: bool
) -> tuple[int, ...]:
    """Output shape; with `ceil`, the last window must start in the image or its left padding."""
    sizes = []
    for n, k, s, p in zip(shape[1:], window, stride, padding, strict=True):
        room = n + 2 * p - k
        count = (-(-room // s) if ceil else room // s) + 1
        sizes.append(count - (ceil and (count - 1) * s >= n + p))
    return (shape[0], *sizes)


def _checked_output(module: nn.Module, where: str, shape: Shape, output: Shape) -> Shape:
    if min(output) < 1:
        refuse(module, where, f"it is too large for an input {shape}: no output is left.")
    return output


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, (tuple, list)) else (value, value)
    return int(first), int(second)


RULES: tuple[tuple[type[nn.Module], Rule], ...] = (
    (nn.Identity, _elementwise),
    (nn.ReLU, _elementwise),
    (nn.Tanh, _elementwise),
    (nn.Sigmoid, _elementwise),
    (nn.LeakyReLU, _leaky_relu),
    (nn.Flatten, _flatten),
    (nn.Linear, _linear),
    (nn.Conv2d, _convolution),
    (nn.BatchNorm1d, _batch_norm),
    (nn.BatchNorm2d, _batch_norm),
    (nn.AvgPool2d, _average_pool),
    (nn.MaxPool2d, _max_pool),
)
