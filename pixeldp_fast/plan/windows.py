"""Which pixels every output pixel of a pooling layer reads, by torch's rules."""

from __future__ import annotations

from typing import Any

from pixeldp_fast.plan.ops import Pair, Shape

Ranges = tuple[Pair, ...]


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
