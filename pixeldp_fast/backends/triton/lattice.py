"""Lattice noise added in integers, by one kernel: the bits of every other sampler.

Not yet run on a device: checked in Triton's interpreter and by reading compiled code. An engine
compares it with the definition, bit by bit, before it hands out a vote.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl

from pixeldp_fast.backends.triton.draws import (
    Draws,
    check_tensor,
    key_words,
    place,
    power_of_two,
    signed,
)
from pixeldp_fast.backends.triton.math import locate, philox
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.lattice import lattice_table
from pixeldp_fast.noise.mechanism import AbstractMechanism

# Blocks of a program, two coordinates each, and of one row in it; not tuned on a device.
_BLOCKS, _WIDEST = 1024, 512
_KINDS = (torch.float32, torch.bfloat16, torch.float16)


@triton.jit
def _steps(high, low, thresholds, COUNT: tl.constexpr, SEARCH: tl.constexpr):
    """How many thresholds are at most the 64-bit word, int32.

    Word and thresholds are both moved down by 2^63, so that they compare as signed integers.
    """
    upper = (high ^ 0x80000000).to(tl.uint64) << 32
    word = (upper | low.to(tl.uint64)).to(tl.int64, bitcast=True)
    found = tl.zeros_like(high).to(tl.int32)
    for i in tl.static_range(SEARCH):
        further = found + (1 << (SEARCH - 1 - i))
        inside = further <= COUNT
        below = tl.load(thresholds + further - 1, mask=inside, other=0) <= word
        found = tl.where(inside & below, further, found)
    return found


@triton.jit(
    do_not_specialize=[
        "key_low",
        "key_high",
        "purpose",
        "first_draw",
        "rest",
        "example",
        "n",
        "last_example",
        "rows",
    ]
)
def _lattice_kernel(
    center,
    address,
    thresholds,
    out,
    levels,
    key_low,
    key_high,
    purpose,
    first_draw,
    rest,
    example,
    n,
    last_example,
    rows,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    COUNT: tl.constexpr,
    SEARCH: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    first = tl.program_id(1) * BLOCKS
    at_example, draw = locate(rest, example, row, n, WIDE)
    at_example = tl.minimum(at_example, last_example)
    word = tl.load(address + at_example).to(tl.uint32)  # [ROWS, 1]
    draw = draw.to(tl.uint32) + first_draw.to(tl.uint32)
    block = (first + tl.arange(0, BLOCKS)[None, :]).to(tl.uint32)
    w0, w1, w2, w3 = philox(block, draw, word, purpose.to(tl.uint32), key_low, key_high)
    even = _steps(w0, w1, thresholds, COUNT, SEARCH)
    odd = _steps(w2, w3, thresholds, COUNT, SEARCH)
    noise = tl.reshape(tl.join(even, odd), (ROWS, 2 * BLOCKS)) - COUNT // 2

    SIZE: tl.constexpr = CHANNELS * PIXELS
    at = 2 * first + tl.arange(0, 2 * BLOCKS)[None, :]
    inside = (at < SIZE) & (row < rows)
    h = tl.load(center + at_example.to(tl.int64) * SIZE + at, mask=inside, other=0)
    where = (at % PIXELS) * CHANNELS + at // PIXELS
    # One IEEE division: the approximate one, or a product with 1/levels, has other bits.
    x = tl.div_rn((h + noise).to(tl.float32), levels)
    kind = out.dtype.element_ty
    tl.store(out + row.to(tl.int64) * SIZE + where, x.to(kind), mask=inside)


def noisy(
    center: torch.Tensor,
    address: torch.Tensor,
    draws: Draws,
    mechanism: AbstractMechanism,
    out: torch.Tensor,
    *,
    channels: int,
) -> None:
    """Fill `out` with float32(center + noise)/m, cast to its dtype, one row per draw.

    Parameters
    ----------
    center : int32 [B, C H W]
        Whole steps from 0, at most 2^23, in C order of [C, H, W]: as `noise.lattice.rounded_torch`
        makes and checks them. Here a check would wait for the device at every launch.
    address : int64 [B]
        The examples' words in the stream.
    draws : Draws
        Their law and scale are not read: the mechanism's table is.
    mechanism : AbstractMechanism
        With a lattice.
    out : float32, bfloat16 or float16 [rows, ...], channels last: [rows, H, W, C] or [rows, D]
        Contiguous. All rows are written; rows of padding repeat the last example.
    channels : int
        C; 1 for a vector.

    Guarantee
        In float32 the bits of `noisy_definition`: integers, and one correctly rounded division.
    """
    device, levels = center.device, mechanism.lattice
    if levels is None:
        raise InvalidArgument(f"{mechanism} has no lattice; `noise.noisy` makes its noise.")
    if center.ndim != 2 or channels < 1 or center.shape[1] % channels:
        raise InvalidArgument(
            f"`center` must be [B, C H W] with C = {channels}, got {tuple(center.shape)}."
        )
    examples, coordinates = center.shape
    if not 0 < coordinates < 2**30:
        raise InvalidArgument(f"Lattice noise takes 1 to 2^30 - 1 coordinates, got {coordinates}.")
    check_tensor("center", center, (examples, coordinates), (torch.int32,), device)
    check_tensor("address", address, (examples,), (torch.int64,), device)
    check_tensor("out", out, tuple(out.shape), _KINDS, device)
    rows = len(out)
    if out.numel() != rows * coordinates or (channels > 1 and out.shape[-1] != channels):
        raise InvalidArgument(
            f"`out` must be [rows, H, W, {channels}] of {coordinates} coordinates a row, "
            f"got {tuple(out.shape)}."
        )
    if draws.examples != examples:
        raise InvalidArgument(f"`draws` is of {draws.examples} examples, `center` of {examples}.")
    at = place(draws, rows)
    thresholds = _thresholds(mechanism, device)
    key_low, key_high = key_words(draws.seed)
    blocks = min(power_of_two(-(-coordinates // 2)), _WIDEST)
    beside = _BLOCKS // blocks
    _lattice_kernel[(-(-rows // beside), -(-coordinates // (2 * blocks)))](
        center,
        address,
        thresholds,
        out,
        float(levels),
        key_low,
        key_high,
        draws.purpose,
        signed(draws.first_draw),
        at.rest,
        at.example,
        at.n,
        at.examples - 1,
        rows,
        CHANNELS=channels,
        PIXELS=coordinates // channels,
        COUNT=len(thresholds),
        SEARCH=len(thresholds).bit_length(),
        WIDE=at.wide,
        ROWS=beside,
        BLOCKS=blocks,
        num_warps=8,
    )


@lru_cache(maxsize=16)
def _thresholds(mechanism: AbstractMechanism, device: torch.device) -> torch.Tensor:
    """The table's thresholds, moved down by 2^63: int64 on the device."""
    moved = lattice_table(mechanism).thresholds ^ np.uint64(2**63)
    return torch.from_numpy(moved.view(np.int64)).to(device)
