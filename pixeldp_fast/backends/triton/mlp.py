"""A whole network of dense layers in one kernel: noise, products, activations, votes, counts.

Nothing per draw leaves the chip. The hidden units of the first layer are held in registers, so its
width is limited; wider networks take `noise`, a product and `heads.dense_dense_count`.

Not yet run on a device: checked in Triton's interpreter and by reading compiled code.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from pixeldp_fast.backends.triton.draws import (
    Draws,
    check_tensor,
    key_words,
    power_of_two,
    signed,
)
from pixeldp_fast.backends.triton.heads import (
    DTYPES,
    MAX_CLASSES,
    ROWS_LIKE,
    check_counting,
    check_index,
    launch_counting,
    padded_classes,
    tally_tile,
)
from pixeldp_fast.backends.triton.math import (
    activate,
    interleave,
    locate,
    locate_more,
    noise_of,
    philox,
    xdot,
)
from pixeldp_fast.errors import InvalidArgument

MAX_HIDDEN = 256  # of the first layer: wider tiles spill, as read from compiled code
MAX_SECOND = 4096


@dataclass(frozen=True)
class MlpConfig:
    """The tile of one program: `rows` draws, `depth` inputs, `units` of the second layer a step."""

    rows: int
    depth: int
    units: int
    warps: int = 8
    stages: int = 2


def supports(widths: Sequence[int], classes: int) -> bool:
    """Whether hidden layers of these widths and this many classes fit the kernel."""
    limits = (MAX_HIDDEN, MAX_SECOND)
    return (
        1 <= len(widths) <= 2
        and all(0 < w <= most for w, most in zip(widths, limits, strict=False))
        and 1 <= classes <= MAX_CLASSES
    )


def mlp_config(widths: Sequence[int], classes: int, dtype: torch.dtype) -> MlpConfig:
    """A tile that spills no register, as read from compiled code for sm_80 and sm_90."""
    first = max(power_of_two(widths[0]), 16)
    units = min(max(power_of_two(widths[1]), 16), 64) if len(widths) > 1 else 16
    if dtype == torch.float32:
        return MlpConfig(32, 16, min(units, 32))
    return MlpConfig(128 if first <= 128 else 64, 64 if first <= 128 else 32, units)


@triton.jit(
    do_not_specialize=[
        "key_low",
        "key_high",
        "purpose",
        "first_draw",
        "last_example",
        *ROWS_LIKE,
    ]
)
def _mlp_kernel(
    center,
    address,
    weight_1,
    bias_1,
    weight_2,
    bias_2,
    weight_3,
    bias_3,
    table,
    noise_scale,
    key_low,
    key_high,
    purpose,
    first_draw,
    last_example,
    rest,
    example,
    n,
    valid,
    LAW: tl.constexpr,
    INPUTS: tl.constexpr,
    FIRST: tl.constexpr,  # width of the first hidden layer
    SECOND: tl.constexpr,  # of the second; 0 without one
    CLASSES: tl.constexpr,
    FIRST_PADDED: tl.constexpr,
    PADDED: tl.constexpr,
    SLOPE_1: tl.constexpr,
    SLOPE_2: tl.constexpr,
    SCORES: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    UNITS: tl.constexpr,
):
    kind: tl.constexpr = weight_1.dtype.element_ty
    start = tl.program_id(0) * ROWS
    first_example, first_rest = locate(rest, example, start, n, WIDE)
    examples, draw = locate_more(first_rest, first_example, tl.arange(0, ROWS)[:, None], n, FEW)
    examples = tl.minimum(examples, last_example)
    words = tl.load(address + examples).to(tl.uint32)
    draw = draw.to(tl.uint32) + first_draw.to(tl.uint32)
    centers = center + examples.to(tl.int64) * INPUTS
    unit = tl.arange(0, FIRST_PADDED)
    units = tl.zeros((ROWS, FIRST_PADDED), dtype=tl.float32)
    for d0 in range(0, INPUTS, DEPTH):
        d = d0 + tl.arange(0, DEPTH)
        quad = (d0 // 4 + tl.arange(0, DEPTH // 4))[None, :].to(tl.uint32)
        w0, w1, w2, w3 = philox(quad, draw, words, purpose.to(tl.uint32), key_low, key_high)
        z0, z1, z2, z3 = noise_of(w0, w1, w2, w3, 1.0, LAW)
        z = interleave(z0, z1, z2, z3, ROWS, DEPTH // 4)
        kept = d < INPUTS
        h = tl.load(centers + d[None, :], mask=kept[None, :], other=0.0)
        w = tl.load(
            weight_1 + unit[None, :] * INPUTS + d[:, None],
            mask=kept[:, None] & (unit < FIRST)[None, :],
            other=0.0,
        )
        noisy = (h + noise_scale * z).to(kind)
        if kind == tl.float16 and INPUTS % DEPTH != 0:  # noise beyond its range, times a zero
            noisy = tl.where(kept[None, :], noisy, 0.0)
        units = xdot(noisy, w, units)
    units += tl.load(bias_1 + unit[None, :], mask=(unit < FIRST)[None, :], other=0.0)
    units = activate(units, SLOPE_1)
    if FIRST != FIRST_PADDED:  # padding stays 0 where an input is infinite
        units = tl.where((unit < FIRST)[None, :], units, 0.0)
    hidden = units.to(kind)

    k = tl.arange(0, PADDED)[None, :]
    if SECOND == 0:
        w = tl.load(
            weight_3 + k * FIRST + unit[:, None],
            mask=(unit < FIRST)[:, None] & (k < CLASSES),
            other=0.0,
        )
        logits = xdot(hidden, w, tl.zeros((ROWS, PADDED), dtype=tl.float32))
    else:
        logits = tl.zeros((ROWS, PADDED), dtype=tl.float32)
        for s0 in range(0, SECOND, UNITS):
            s = s0 + tl.arange(0, UNITS)
            kept = s < SECOND
            w = tl.load(
                weight_2 + s[None, :] * FIRST + unit[:, None],
                mask=kept[None, :] & (unit < FIRST)[:, None],
                other=0.0,
            )
            more = xdot(hidden, w, tl.zeros((ROWS, UNITS), dtype=tl.float32))
            more += tl.load(bias_2 + s[None, :], mask=kept[None, :], other=0.0)
            more = activate(more, SLOPE_2)
            if SECOND % UNITS != 0:
                more = tl.where(kept[None, :], more, 0.0)
            w = tl.load(
                weight_3 + k * SECOND + s[:, None],
                mask=kept[:, None] & (k < CLASSES),
                other=0.0,
            )
            logits = xdot(more.to(kind), w, logits)
    logits += tl.load(bias_3 + k, mask=k < CLASSES, other=0.0)
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


def mlp_count(
    center: torch.Tensor,
    address: torch.Tensor,
    draws: Draws,
    weights: Sequence[tuple[torch.Tensor, torch.Tensor]],
    table: torch.Tensor,
    *,
    rows: int,
    slopes: Sequence[float],
    scores: str = "votes",
    dtype: torch.dtype = torch.float32,
    config: MlpConfig | None = None,
) -> None:
    """Noise, two or three dense layers and the count, for rows [first_row, first_row + rows).

    Parameters
    ----------
    center : float32 [B, D]
    address : int64 [B]
    draws : Draws
    weights : two or three of ([out, in] of `dtype`, float32 [out])
        The first at most 256 wide, at most 127 classes: `supports`.
    table, scores
        As for `heads.count`.
    rows : int
        Of the launch; those from examples x n on are padding and are not counted.
    slopes : one per hidden layer
        Of its activation: 0 ReLU, 1 the identity.
    dtype : float32, bfloat16 or float16
        Of every product's factors; sums are float32.

    Guarantee
        A draw's logits depend on its example, draw and seed alone, whatever the launch.
    """
    if dtype not in DTYPES:
        raise InvalidArgument(f"`dtype` must be one of {DTYPES}, got {dtype}.")
    widths = [len(weight) for weight, _ in weights]
    if not supports(widths[:-1], widths[-1] if widths else 0) or len(slopes) != len(widths) - 1:
        raise InvalidArgument(
            f"This kernel takes one or two hidden layers of at most {MAX_HIDDEN} and {MAX_SECOND} "
            f"units, a slope for each, and at most {MAX_CLASSES} classes; got widths {widths} and "
            f"{len(slopes)} slopes."
        )
    if center.ndim != 2:
        raise InvalidArgument(f"`center` must be [B, D], got {tuple(center.shape)}.")
    device = table.device
    examples, inputs = center.shape
    check_counting(draws, table, scores, widths[-1], MAX_CLASSES)
    check_tensor("center", center, (draws.examples, inputs), (torch.float32,), device)
    check_tensor("address", address, (examples,), (torch.int64,), device)
    for i, (weight, bias) in enumerate(weights):
        shape = (widths[i], widths[i - 1] if i else inputs)
        check_tensor(f"weights[{i}][0]", weight, shape, (dtype,), device)
        check_index(f"weights[{i}][0]", weight.numel())
        check_tensor(f"weights[{i}][1]", bias, (widths[i],), (torch.float32,), device)
    config = config or mlp_config(widths[:-1], widths[-1], dtype)
    deep = len(weights) == 3
    launch_counting(
        _mlp_kernel,
        (
            center,
            address,
            *weights[0],
            *(weights[1] if deep else (None, None)),
            *weights[-1],
            table,
            float(draws.scale),
            *key_words(draws.seed),
            draws.purpose,
            signed(draws.first_draw),
            draws.examples - 1,
        ),
        draws,
        rows,
        config,
        LAW=draws.law,
        INPUTS=inputs,
        FIRST=widths[0],
        SECOND=widths[1] if deep else 0,
        CLASSES=widths[-1],
        FIRST_PADDED=max(power_of_two(widths[0]), 16),
        PADDED=padded_classes(widths[-1]),
        SLOPE_1=float(slopes[0]),
        SLOPE_2=float(slopes[-1]),
        SCORES=scores == "softmax",
        DEPTH=config.depth,
        UNITS=config.units,
    )
