"""How pooling lowers: which pixels every output pixel reads, by torch's rules."""

from __future__ import annotations

from typing import Any

from pixeldp_fast.plan.builder import Builder, Refused, features
from pixeldp_fast.plan.ops import Pair, Pool, Shape

Ranges = tuple[Pair, ...]


def max_pool(
    build: Builder,
    shape: Shape,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> int:
    source = build.map_of(x)
    if pair(dilation) != (1, 1):
        raise Refused("its window has gaps (dilation)")
    grid = windows(build.shapes[source], shape, kernel_size, stride, padding)
    return build.emit(Pool(source, "max", *grid), shape)


def average_pool(
    build: Builder,
    shape: Shape,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> int:
    source = build.map_of(x)
    grid = windows(build.shapes[source], shape, kernel_size, stride, padding)
    if divisor_override is not None:
        divisors = ((int(divisor_override),) * shape[2],) * shape[1]
    elif count_include_pad:
        size = build.shapes[source]
        padded = windows(size, shape, kernel_size, stride, padding, with_padding=True)
        divisors = mean_divisors(*padded)
    else:
        divisors = mean_divisors(*grid)
    return build.emit(Pool(source, "mean", *grid, divisors), shape)


def adaptive_average_pool(build: Builder, shape: Shape, x: Any, output_size: Any) -> int:
    source = build.map_of(x)
    grid = adaptive_windows(build.shapes[source], shape)
    return build.emit(Pool(source, "mean", *grid, mean_divisors(*grid)), shape)


def adaptive_max_pool(build: Builder, shape: Shape, x: Any, output_size: Any) -> int:
    source = build.map_of(x)
    return build.emit(Pool(source, "max", *adaptive_windows(build.shapes[source], shape)), shape)


def mean(build: Builder, shape: Shape, x: Any, dim: Any, keepdim: bool, dtype: Any) -> int:
    x = features(x)
    if sorted(d % (len(x.shape) + 1) for d in dim or ()) != [2, 3]:
        raise Refused("averages over other dimensions than height and width")
    pooled = (x.shape[0], 1, 1)
    return adaptive_average_pool(build, pooled, x, (1, 1))


def windows(
    before: Shape, after: Shape, kernel: Any, stride: Any, padding: Any, with_padding: bool = False
) -> tuple[Ranges, Ranges]:
    """The rows and the columns of every output row and column, [first, last).

    Parameters
    ----------
    before, after : shape [C, H, W]
        Of the input and the output, whose size settles `ceil_mode`.
    kernel, stride, padding : int or pair
        As torch traces them; an empty stride is the kernel's size.
    with_padding : bool
        False: inside the map. True: inside the padded map, where rows may be negative, as torch
        counts pixels for `count_include_pad`; a last window that `ceil_mode` adds ends there.
    """
    kernel, padding = pair(kernel), pair(padding)
    stride = pair(stride or kernel)
    rows, columns = (
        tuple(
            _clipped(i * stride[axis] - padding[axis], kernel[axis], before[axis + 1], margin)
            for i in range(after[axis + 1])
        )
        for axis, margin in enumerate(padding if with_padding else (0, 0))
    )
    return rows, columns


def _clipped(first: int, length: int, size: int, margin: int) -> Pair:
    return max(first, -margin), min(first + length, size + margin)


def adaptive_windows(before: Shape, after: Shape) -> tuple[Ranges, Ranges]:
    """torch's adaptive windows: from floor(i n / m) to ceil((i + 1) n / m), which may overlap."""
    rows, columns = (
        tuple((i * n // m, -(-(i + 1) * n // m)) for i in range(m))
        for n, m in zip(before[1:], after[1:], strict=True)
    )
    return rows, columns


def mean_divisors(rows: Ranges, columns: Ranges) -> tuple[tuple[int, ...], ...]:
    """The number of pixels of every window, [H', W']."""
    return tuple(tuple((b - a) * (d - c) for c, d in columns) for a, b in rows)


def pair(value: Any) -> Pair:
    """One or two integers as two."""
    if isinstance(value, (list, tuple)):
        return int(value[0]), int(value[-1])
    return int(value), int(value)
