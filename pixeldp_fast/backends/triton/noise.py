"""The noise prologue: affine(center + noise), activated, cast, channels last, in one pass.

Not yet run on a device: checked in Triton's interpreter and by reading compiled code.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"

from __future__ import annotations

from dataclasses import dataclass

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
from pixeldp_fast.backends.triton.math import (
    activate,
    interleave,
    locate,
    locate_more,
    philox,
    unit_noise,
)
from pixeldp_fast.errors import InvalidArgument

OUT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_TILE_QUADS = 256  # 1,024 coordinates, 8 a thread; not tuned on a device
_MAX_ROWS = 128  # divides every launch of the engine
_MAX_CHANNELS = 64  # a tile's channels: 64 two-byte values are four sectors of a store


@dataclass(frozen=True)
class NoiseConfig:
    """The tile of one program: `rows` draws, `channels` and blocks of four coordinates."""

    rows: int
    channels: int
    quads: int
    warps: int = 4


def default_config(channels: int, coordinates: int) -> NoiseConfig:
    """A tile of about a thousand coordinates that writes whole sectors.

    Parameters
    ----------
    channels : int
        1 for a vector.
    coordinates : int
        Channels times pixels.
    """
    if _flat(channels, coordinates):
        lines, quads = 1, -(-coordinates // 4)
    else:
        lines, quads = channels, -(-coordinates // channels // 4)
    tile_lines = min(power_of_two(lines), _MAX_CHANNELS)
    tile_quads = min(power_of_two(quads), max(_TILE_QUADS // tile_lines, 4))
    rows = min(max(_TILE_QUADS // (tile_lines * tile_quads), 1), _MAX_ROWS)
    return NoiseConfig(rows, tile_lines, tile_quads)


def _flat(channels: int, coordinates: int) -> bool:
    """Whether blocks of four coordinates cross channels, so that tiles ignore channels."""
    return channels > 1 and (coordinates // channels) % 4 != 0


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
    ]
)
def _noise_kernel(
    center,
    address,
    out,
    scales,
    shifts,
    noise_scale,
    key_low,
    key_high,
    purpose,
    first_draw,
    rest,
    example,
    n,
    last_example,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    LAW: tl.constexpr,
    FLAT: tl.constexpr,
    AFFINE: tl.constexpr,
    SLOPE: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
    TILE_QUADS: tl.constexpr,
):
    TILES: tl.constexpr = (PIXELS + 4 * TILE_QUADS - 1) // (4 * TILE_QUADS)
    tile = tl.program_id(1)
    if FLAT or CHANNELS == 1:  # one line of all coordinates
        first_quad = tile * TILE_QUADS
        line_channel = 0
        length = CHANNELS * PIXELS
    else:
        first_quad = (tile % TILES) * TILE_QUADS
        line_channel = (tile // TILES) * TILE_CHANNELS
        length = PIXELS
    first = tl.program_id(0) * ROWS
    first_example, first_rest = locate(rest, example, first, n, WIDE)
    quad = first_quad + tl.arange(0, TILE_QUADS)[None, :]
    at = 4 * first_quad + tl.arange(0, 4 * TILE_QUADS)[None, :]  # along a line
    if ROWS == 1:
        channel = line_channel + tl.arange(0, TILE_CHANNELS)[:, None]
        row = first
        examples, draw = first_example, first_rest
    else:
        line = tl.arange(0, ROWS * TILE_CHANNELS)[:, None]
        if TILE_CHANNELS == 1:
            channel = line_channel
        else:
            channel = line_channel + line % TILE_CHANNELS
            line = line // TILE_CHANNELS
        row = first + line
        examples, draw = locate_more(first_rest, first_example, line, n, FEW)
    examples = tl.minimum(examples, last_example)
    words = tl.load(address + examples).to(tl.uint32)
    draw = draw.to(tl.uint32) + first_draw.to(tl.uint32)
    block = (channel * (length // 4) + quad).to(tl.uint32)
    w0, w1, w2, w3 = philox(block, draw, words, purpose.to(tl.uint32), key_low, key_high)
    z0, z1, z2, z3 = unit_noise(w0, w1, w2, w3, LAW)
    z = interleave(z0, z1, z2, z3, ROWS * TILE_CHANNELS, TILE_QUADS)

    inside = at < length
    if not (FLAT or CHANNELS == 1):
        inside = inside & (channel < CHANNELS)
    SIZE: tl.constexpr = CHANNELS * PIXELS
    h = tl.load(center + examples.to(tl.int64) * SIZE + channel * length + at, mask=inside)
    x = h + noise_scale * z
    if FLAT:
        where = (at % PIXELS) * CHANNELS + at // PIXELS
    else:
        where = at * CHANNELS + channel
    if AFFINE:
        if FLAT:
            each = at // PIXELS
        else:
            each = channel
        kept = each < CHANNELS
        x = x * tl.load(scales + each, mask=kept) + tl.load(shifts + each, mask=kept)
    x = activate(x, SLOPE)
    tl.store(out + row.to(tl.int64) * SIZE + where, x.to(out.dtype.element_ty), mask=inside)


def noisy(
    center: torch.Tensor,
    address: torch.Tensor,
    draws: Draws,
    out: torch.Tensor,
    *,
    channels: int,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    slope: float = 1.0,
    config: NoiseConfig | None = None,
) -> None:
    """Fill `out` with activation(scale (center + noise) + shift), one row per draw.

    Parameters
    ----------
    center : float32 [B, C H W]
        Features at the noise point, in C order of [C, H, W].
    address : int64 [B]
        The examples' words in the stream; all 2^32 - 1 where they share their draws.
    draws : Draws
    out : float32, bfloat16 or float16 [rows, ...], channels last: [rows, H, W, C] or [rows, D]
        Contiguous. All rows are written; rows of padding repeat the last example.
    channels : int
        C; 1 for a vector.
    scale, shift : float32 [C], both or none
    slope : float
        Of the activation: 1 the identity, 0 ReLU.

    Guarantee
        A row depends on its example, draw and seed alone, whatever the launch.
    Fidelity
        The words of `noise_definition`; values within 1e-5 of its at scale 1, by the budget in
        `math`, which no device has confirmed yet.
    """
    device = center.device
    if center.ndim != 2 or channels < 1 or center.shape[1] % channels:
        raise InvalidArgument(
            f"`center` must be [B, C H W] with C = {channels}, got {tuple(center.shape)}."
        )
    examples, coordinates = center.shape
    if not 0 < coordinates < 2**31:
        raise InvalidArgument(f"Noise takes 1 to 2^31 - 1 coordinates, got {coordinates}.")
    check_tensor("center", center, (examples, coordinates), (torch.float32,), device)
    check_tensor("address", address, (examples,), (torch.int64,), device)
    check_tensor("out", out, tuple(out.shape), OUT_DTYPES, device)
    rows = len(out)
    if out.numel() != rows * coordinates or (channels > 1 and out.shape[-1] != channels):
        raise InvalidArgument(
            f"`out` must be [rows, H, W, {channels}] of {coordinates} coordinates a row, "
            f"got {tuple(out.shape)}."
        )
    if (scale is None) != (shift is None):
        raise InvalidArgument("`scale` and `shift` come together.")
    for name, each in (("scale", scale), ("shift", shift)):
        if each is not None:
            check_tensor(name, each, (channels,), (torch.float32,), device)
    if draws.examples != examples:
        raise InvalidArgument(f"`draws` is of {draws.examples} examples, `center` of {examples}.")
    config = config or default_config(channels, coordinates)
    at = place(draws, rows)
    if rows % config.rows:
        raise InvalidArgument(f"`out` must have a multiple of {config.rows} rows, got {rows}.")
    flat, pixels = _flat(channels, coordinates), coordinates // channels
    if flat and config.channels != 1:
        raise InvalidArgument(f"{pixels} pixels are no multiple of 4: a tile takes one line.")
    tiles = -(-(coordinates if flat else pixels) // (4 * config.quads))
    groups = 1 if flat else -(-channels // config.channels)
    key_low, key_high = key_words(draws.seed)
    _noise_kernel[(rows // config.rows, tiles * groups)](
        center,
        address,
        out,
        scale,
        shift,
        float(draws.scale),
        key_low,
        key_high,
        draws.purpose,
        signed(draws.first_draw),
        at.rest,
        at.example,
        at.n,
        at.examples - 1,
        CHANNELS=channels,
        PIXELS=pixels,
        LAW=draws.law,
        FLAT=flat,
        AFFINE=scale is not None,
        SLOPE=float(slope),
        FEW=at.n < config.rows,
        WIDE=at.wide,
        ROWS=config.rows,
        TILE_CHANNELS=config.channels,
        TILE_QUADS=config.quads,
        num_warps=config.warps,
        num_stages=1,
        enable_fp_fusion=True,
    )
