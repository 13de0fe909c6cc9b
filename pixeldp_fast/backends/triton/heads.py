"""Heads that end in counts: no logit is stored, and a launch adds integers to one line per example.

Not yet run on a device: checked in Triton's interpreter and by reading compiled code.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import triton
import triton.language as tl

from pixeldp_fast.backends.triton.draws import Draws, check_tensor, place, power_of_two
from pixeldp_fast.backends.triton.math import activate, count_rows, locate, locate_more, xdot
from pixeldp_fast.errors import InvalidArgument

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCORES = ("votes", "softmax")
MAX_COUNT_CLASSES = 8192  # of given logits: one row of a program
MAX_CLASSES = 127  # of the fused heads: with the lost draws 128 columns stay in registers
ROWS_LIKE = [  # scalars that differ between launches: no specialisation, so one compiled kernel
    "rest",
    "example",
    "n",
    "valid",
]


@dataclass(frozen=True)
class HeadConfig:
    """The tile of one program: `rows` draws, `hidden` columns at a time, `depth` inputs a step."""

    rows: int
    hidden: int = 0
    depth: int = 0
    warps: int = 4
    stages: int = 1


def table_width(classes: int, scores: str) -> int:
    """Columns of a table: votes and the lost draws; with softmax the scores and their squares."""
    return classes + 1 if scores == "votes" else 3 * classes + 1


def check_counting(draws: Draws, table: torch.Tensor, scores: str, classes: int, most: int) -> None:
    if scores not in SCORES:
        raise InvalidArgument(f"`scores` must be one of {SCORES}, got {scores!r}.")
    if not 1 <= classes <= most:
        raise InvalidArgument(f"This head takes 1 to {most} classes, got {classes}.")
    shape = (draws.examples, table_width(classes, scores))
    check_tensor("table", table, shape, (torch.int64,), table.device)


def check_index(name: str, elements: int) -> None:
    """Refuse what a kernel would index beyond 31 bits."""
    if elements >= 2**31:
        raise InvalidArgument(f"`{name}` must have fewer than 2^31 elements, got {elements}.")


class Tile(Protocol):
    """The part of a configuration that every kernel that counts has."""

    @property
    def rows(self) -> int: ...
    @property
    def warps(self) -> int: ...
    @property
    def stages(self) -> int: ...


def launch_counting(
    kernel: Any,
    arguments: Sequence[Any],
    draws: Draws,
    rows: int,
    config: Tile,
    **constants: Any,
) -> None:
    """Launch a kernel that ends in `tally_tile`, a program for each of its tiles of rows.

    `arguments` are the kernel's own, in front of the scalars that place its rows.
    """
    if rows % config.rows:
        raise InvalidArgument(f"This kernel takes a multiple of {config.rows} rows, got {rows}.")
    at = place(draws, rows)
    kernel[(rows // config.rows,)](
        *arguments,
        at.rest,
        at.example,
        at.n,
        at.valid,
        **constants,
        FEW=at.n < config.rows,
        WIDE=at.wide,
        ROWS=config.rows,
        num_warps=config.warps,
        num_stages=config.stages,
        enable_fp_fusion=True,
    )


@triton.jit
def tally_tile(
    logits,
    table,
    rest,
    example,
    n,
    valid,
    CLASSES: tl.constexpr,
    PADDED: tl.constexpr,
    SCORES: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Count the logits [ROWS, PADDED] of program 0's tile of rows."""
    first = tl.program_id(0) * ROWS
    if first < valid:
        i = tl.arange(0, ROWS)
        first_example, first_rest = locate(rest, example, first, n, WIDE)
        examples, _ = locate_more(first_rest, first_example, i, n, FEW)
        counted = first + i < valid
        end, _ = locate(rest, example, tl.minimum(first + ROWS, valid) - 1, n, WIDE)
        width = 3 * CLASSES + 1 if SCORES else CLASSES + 1
        count_rows(
            logits, examples, counted, first_example, end, table, width, CLASSES, PADDED, SCORES
        )


@triton.jit(do_not_specialize=ROWS_LIKE)
def _count_kernel(
    logits,
    table,
    rest,
    example,
    n,
    valid,
    CLASSES: tl.constexpr,
    PADDED: tl.constexpr,
    SCORES: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, PADDED)[None, :]
    given = tl.load(logits + row * CLASSES + column, mask=column < CLASSES, other=0.0)
    tally_tile(
        given.to(tl.float32),
        table,
        rest,
        example,
        n,
        valid,
        CLASSES,
        PADDED,
        SCORES,
        FEW,
        WIDE,
        ROWS,
    )


def count_config(classes: int) -> HeadConfig:
    """A tile of about 2,048 logits, at most 16 a thread."""
    padded = power_of_two(classes + 1)
    return HeadConfig(rows=min(max(2048 // padded, 1), 128), warps=8 if padded >= 256 else 4)


def count(
    logits: torch.Tensor,
    draws: Draws,
    table: torch.Tensor,
    *,
    scores: str = "votes",
    config: HeadConfig | None = None,
) -> None:
    """Add the votes of given logits to `table`.

    Parameters
    ----------
    logits : float32, bfloat16 or float16 [rows, K]
    draws : Draws
        Rows from examples x n on are padding and are not counted.
    table : int64 [B, K + 1], or [B, 3 K + 1] with softmax
        Votes, then draws with a logit that is not finite; with softmax the scores floored to 2^-20
        and their squares follow.
    scores : "votes" or "softmax"

    Guarantee
        Exact: integers, the same in any order of programs. A row's scores sum to at most 1.
    """
    if logits.ndim != 2:
        raise InvalidArgument(f"`logits` must be [rows, K], got {tuple(logits.shape)}.")
    rows, classes = logits.shape
    check_counting(draws, table, scores, classes, MAX_COUNT_CLASSES)
    check_tensor("logits", logits, (rows, classes), DTYPES, table.device)
    config = config or count_config(classes)
    launch_counting(
        _count_kernel,
        (logits, table),
        draws,
        rows,
        config,
        CLASSES=classes,
        PADDED=power_of_two(classes + 1),
        SCORES=scores == "softmax",
    )


@triton.jit(do_not_specialize=ROWS_LIKE)
def _pool_dense_kernel(
    x,
    weight,
    bias,
    table,
    rest,
    example,
    n,
    valid,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    CLASSES: tl.constexpr,
    PADDED: tl.constexpr,
    SCORES: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    kind: tl.constexpr = x.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    k = tl.arange(0, PADDED)[None, :]
    first_pixel = x + row * (PIXELS * CHANNELS)
    logits = tl.zeros((ROWS, PADDED), dtype=tl.float32)
    for c0 in range(0, CHANNELS, DEPTH):
        c = c0 + tl.arange(0, DEPTH)
        kept = c < CHANNELS
        pooled = tl.zeros((ROWS, DEPTH), dtype=tl.float32)
        for p in range(PIXELS):
            pixel = first_pixel + (p * CHANNELS + c)[None, :]
            pooled += tl.load(pixel, mask=kept[None, :], other=0.0).to(tl.float32)
        pooled = pooled * (1.0 / PIXELS)
        w = tl.load(
            weight + k * CHANNELS + c[:, None], mask=kept[:, None] & (k < CLASSES), other=0.0
        )
        high = pooled.to(kind)
        logits = xdot(high, w, logits)
        if PIXELS > 1 and kind != tl.float32:  # a mean has more digits than its inputs
            logits = xdot((pooled - high.to(tl.float32)).to(kind), w, logits)
    logits += tl.load(bias + k, mask=k < CLASSES, other=0.0)
    tally_tile(
        logits,
        table,
        rest,
        example,
        n,
        valid,
        CLASSES,
        PADDED,
        SCORES,
        FEW,
        WIDE,
        ROWS,
    )


def pool_dense_config(classes: int, channels: int, dtype: torch.dtype) -> HeadConfig:
    """64 draws: the fewest rows at which Hopper keeps its widest products, so the same rounding."""
    padded = padded_classes(classes)
    depth = min(max(power_of_two(channels), 16), 64 if padded <= 32 else 32)
    return HeadConfig(rows=64, depth=depth, warps=4 if padded <= 32 else 8, stages=2)


def padded_classes(classes: int) -> int:
    """Columns of a product's tile: a class each, one for the lost draws, and at least 16."""
    return max(power_of_two(classes + 1), 16)


def pool_dense_count(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    draws: Draws,
    table: torch.Tensor,
    *,
    scores: str = "votes",
    config: HeadConfig | None = None,
) -> None:
    """Mean over the pixels, a dense layer and the count; with one pixel a dense layer alone.

    Parameters
    ----------
    x : float32, bfloat16 or float16 [rows, pixels, C]
        Channels last.
    weight : [K, C], of the dtype of `x`
        K at most 127; above, a dense layer and `count`.
    bias : float32 [K]
    draws, table, scores
        As for `count`.

    Fidelity
        Sums in float32. Means of 16-bit inputs enter the product as two numbers, so that they keep
        twice the digits.
    """
    if x.ndim != 3 or weight.ndim != 2:
        raise InvalidArgument(
            "`x` must be [rows, pixels, C] and `weight` [K, C], got "
            f"{tuple(x.shape)} and {tuple(weight.shape)}."
        )
    rows, pixels, channels = x.shape
    classes = len(weight)
    check_counting(draws, table, scores, classes, MAX_CLASSES)
    check_tensor("x", x, (rows, pixels, channels), DTYPES, table.device)
    check_tensor("weight", weight, (classes, channels), (x.dtype,), table.device)
    check_tensor("bias", bias, (classes,), (torch.float32,), table.device)
    check_index("a row of x", pixels * channels)
    check_index("weight", classes * channels)
    config = config or pool_dense_config(classes, channels, x.dtype)
    launch_counting(
        _pool_dense_kernel,
        (x, weight, bias, table),
        draws,
        rows,
        config,
        CLASSES=classes,
        PADDED=padded_classes(classes),
        SCORES=scores == "softmax",
        CHANNELS=channels,
        PIXELS=pixels,
        DEPTH=config.depth,
    )


@triton.jit(do_not_specialize=ROWS_LIKE)
def _dense_dense_kernel(
    x,
    weight_1,
    bias_1,
    weight_2,
    bias_2,
    table,
    rest,
    example,
    n,
    valid,
    INPUTS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CLASSES: tl.constexpr,
    PADDED: tl.constexpr,
    SLOPE: tl.constexpr,
    SCORES: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    kind: tl.constexpr = x.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    k = tl.arange(0, PADDED)[None, :]
    lines = x + row * INPUTS
    logits = tl.zeros((ROWS, PADDED), dtype=tl.float32)
    for h0 in range(0, HIDDEN, UNITS):
        h = h0 + tl.arange(0, UNITS)
        units = tl.zeros((ROWS, UNITS), dtype=tl.float32)
        for d0 in range(0, INPUTS, DEPTH):
            d = d0 + tl.arange(0, DEPTH)
            w1 = weight_1 + h.to(tl.int64)[None, :] * INPUTS + d[:, None]
            inside = (h < HIDDEN)[None, :]
            if INPUTS % DEPTH == 0:
                a = tl.load(lines + d[None, :])
            else:
                a = tl.load(lines + d[None, :], mask=(d < INPUTS)[None, :], other=0.0)
                inside = inside & (d < INPUTS)[:, None]
            if HIDDEN % UNITS == 0 and INPUTS % DEPTH == 0:
                w = tl.load(w1)
            else:
                w = tl.load(w1, mask=inside, other=0.0)
            units = xdot(a, w, units)
        units += tl.load(bias_1 + h[None, :], mask=(h < HIDDEN)[None, :], other=0.0)
        units = activate(units, SLOPE)
        if HIDDEN % UNITS != 0:  # an infinite input times their zeros is none
            units = tl.where((h < HIDDEN)[None, :], units, 0.0)
        w2 = tl.load(
            weight_2 + k * HIDDEN + h[:, None],
            mask=(h < HIDDEN)[:, None] & (k < CLASSES),
            other=0.0,
        )
        logits = xdot(units.to(kind), w2, logits)
    logits += tl.load(bias_2 + k, mask=k < CLASSES, other=0.0)
    tally_tile(
        logits,
        table,
        rest,
        example,
        n,
        valid,
        CLASSES,
        PADDED,
        SCORES,
        FEW,
        WIDE,
        ROWS,
    )


def dense_dense_config(inputs: int, hidden: int, classes: int, dtype: torch.dtype) -> HeadConfig:
    """The widest tile that spills no register, as read from code for sm_80 and sm_90."""
    padded = padded_classes(classes)
    units = min(max(power_of_two(hidden), 16), 256)
    depth = min(max(power_of_two(inputs), 16), 64)
    if dtype == torch.float32:  # no tensor cores: IEEE products in the ordinary registers
        if padded > 32:
            return HeadConfig(32, min(units, 32), min(depth, 32), warps=8, stages=2)
        return HeadConfig(64, min(units, 64), min(depth, 32), warps=8, stages=2)
    if padded > 32:
        return HeadConfig(64, units, depth, warps=8, stages=3)
    return HeadConfig(128, units, depth, warps=8, stages=3)


def dense_dense_count(
    x: torch.Tensor,
    w1: torch.Tensor,
    b1: torch.Tensor,
    w2: torch.Tensor,
    b2: torch.Tensor,
    draws: Draws,
    table: torch.Tensor,
    *,
    slope: float = 0.0,
    scores: str = "votes",
    config: HeadConfig | None = None,
) -> None:
    """Two dense layers with an activation between them, and the count.

    A program owns its draws and walks over all hidden units: no partial sums meet in memory, so a
    draw's logits do not depend on what runs beside it.

    Parameters
    ----------
    x : float32, bfloat16 or float16 [rows, D]
    w1, w2 : [H, D], [K, H], of the dtype of `x`
        K at most 127.
    b1, b2 : float32 [H], [K]
    draws, table, scores
        As for `count`.
    slope : float
        Of the activation: 0 ReLU, 1 the identity.

    Fidelity
        Sums in float32; hidden units are rounded to the dtype of `x` before the second product.
    """
    if x.ndim != 2 or w1.ndim != 2 or w2.ndim != 2:
        raise InvalidArgument(
            "`x` must be [rows, D], `w1` [H, D], `w2` [K, H], got "
            f"{tuple(x.shape)}, {tuple(w1.shape)}, {tuple(w2.shape)}."
        )
    rows, inputs = x.shape
    hidden, classes = len(w1), len(w2)
    check_counting(draws, table, scores, classes, MAX_CLASSES)
    device = table.device
    check_tensor("x", x, (rows, inputs), DTYPES, device)
    check_tensor("w1", w1, (hidden, inputs), (x.dtype,), device)
    check_tensor("b1", b1, (hidden,), (torch.float32,), device)
    check_tensor("w2", w2, (classes, hidden), (x.dtype,), device)
    check_tensor("b2", b2, (classes,), (torch.float32,), device)
    check_index("w1", hidden * inputs)
    check_index("w2", classes * hidden)
    config = config or dense_dense_config(inputs, hidden, classes, x.dtype)
    launch_counting(
        _dense_dense_kernel,
        (x, w1, b1, w2, b2, table),
        draws,
        rows,
        config,
        CLASSES=classes,
        PADDED=padded_classes(classes),
        SCORES=scores == "softmax",
        INPUTS=inputs,
        HIDDEN=hidden,
        SLOPE=float(slope),
        UNITS=config.hidden,
        DEPTH=config.depth,
    )
