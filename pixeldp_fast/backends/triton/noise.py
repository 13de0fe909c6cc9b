"""The noise prologue: affine(center + noise), activated, cast, channels last, in one pass.

Not yet run on a device: checked in Triton's interpreter and by reading compiled code.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
    INTERPRETED,
    activate,
    interleave,
    locate,
    locate_more,
    noise_of,
    philox,
)
from pixeldp_fast.errors import InvalidArgument

OUT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_COORDINATES = 2**30  # so that no index within a row passes 31 bits, a tile's padding included
_MAX_GRID = 65_535  # programs of a grid's second axis
_BLOCKS = 4  # a thread's, of four coordinates each; not tuned on a device
_MAX_WARPS = 4
_MAX_ROWS = 128  # divides every launch of the engine
_MAX_CHANNELS = 64  # a tile's channels: 64 two-byte values are four sectors of a store
_MIN_MAP_CHANNELS = 8  # 16 bytes in a row: below, stores go through shared memory
_STEPS = 32  # draws one after another: what does not change between them is worked out once
_MAP_REGISTERS = 96  # of a thread: left alone, ptxas stops at 80 and spills two
_WASTE = 1.08  # of padding, at most, before a tile is halved


@dataclass(frozen=True)
class NoiseConfig:
    """The tile of one program: `rows` draws of `channels` times `quads` blocks of coordinates.

    The draws are taken in `steps` steps, in each `rows` / `steps` side by side.
    """

    rows: int
    channels: int
    quads: int
    warps: int = 4
    steps: int = 1


def default_config(channels: int, coordinates: int) -> NoiseConfig:
    """A tile of about 16 coordinates a thread, few of them padding, that writes whole sectors.

    Parameters
    ----------
    channels : int
        1 for a vector.
    coordinates : int
        Channels times pixels.
    """
    flat = _flat(channels, coordinates)
    lines, length = (1, coordinates) if flat else (channels, coordinates // channels)
    tile_lines = _tile(lines, _MAX_CHANNELS, 16)
    tile_quads = _tile(-(-length // 4), 32 * _MAX_WARPS * _BLOCKS // tile_lines, 4)
    warps = max(tile_lines * tile_quads // (32 * _BLOCKS), 1)
    beside = min(max(32 * _BLOCKS // (tile_lines * tile_quads), 1), _MAX_ROWS)
    steps = 1 if INTERPRETED else min(_STEPS, _MAX_ROWS // beside)
    return NoiseConfig(beside * steps, tile_lines, tile_quads, warps, steps)


def _tile(size: int, most: int, least: int) -> int:
    """A power of two up to `most` that covers `size`, in several tiles rather than much padding."""
    tile = min(power_of_two(size), most)
    while tile > least and -(-size // tile) * tile > _WASTE * size:
        tile //= 2
    return tile


def _flat(channels: int, coordinates: int) -> bool:
    """Whether blocks of four coordinates cross channels, so that tiles ignore channels."""
    return channels > 1 and (coordinates // channels) % 4 != 0


def _is_map(channels: int, coordinates: int) -> bool:
    """Whether neighbouring threads take neighbouring channels: `_map_kernel`."""
    return channels >= _MIN_MAP_CHANNELS and not _flat(channels, coordinates)


@lru_cache(maxsize=32)
def _block_table(channels: int, pixels: int, device: torch.device) -> torch.Tensor:
    """The number of every block of a map, int32 [pixels / 4, C]."""
    order = torch.arange(channels * pixels // 4, dtype=torch.int32, device=device)
    return order.view(channels, -1).T.contiguous()


@triton.jit
def _step(step, rest, example, lane, n, last_example, FEW: tl.constexpr, BESIDE: tl.constexpr):
    """Example and draw of every lane of a step, and the first and the last of its examples."""
    examples, draw = locate_more(rest, example, step * BESIDE + lane, n, FEW)
    oldest, _ = locate_more(rest, example, step * BESIDE, n, FEW)
    newest, _ = locate_more(rest, example, step * BESIDE + (BESIDE - 1), n, FEW)
    oldest = tl.minimum(oldest, last_example)
    newest = tl.minimum(newest, last_example)
    return tl.minimum(examples, last_example), draw.to(tl.uint32), oldest, newest


@triton.jit
def _finished(x, scale, shift, AFFINE: tl.constexpr, SLOPE: tl.constexpr):
    """What follows the noise, float32."""
    if AFFINE:
        x = x * scale + shift
    return activate(x, SLOPE)


_LIKE = [  # scalars that differ between launches: no specialisation, so one compiled kernel
    "key_low",
    "key_high",
    "purpose",
    "first_draw",
    "rest",
    "example",
    "n",
    "last_example",
]


@triton.jit(do_not_specialize=_LIKE)
def _line_kernel(
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
    BESIDE: tl.constexpr,
    STEPS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
    TILE_QUADS: tl.constexpr,
):
    """Vectors, few channels, blocks that cross channels: channels down, coordinates across."""
    ONE: tl.constexpr = FLAT or CHANNELS == 1  # one line of all coordinates
    SIZE: tl.constexpr = CHANNELS * PIXELS
    LENGTH: tl.constexpr = SIZE if ONE else PIXELS
    TILES: tl.constexpr = (LENGTH + 4 * TILE_QUADS - 1) // (4 * TILE_QUADS)
    tile = tl.program_id(1)
    first_quad = (tile % TILES) * TILE_QUADS
    line = tl.arange(0, BESIDE * TILE_CHANNELS)[:, None]
    quad = first_quad + tl.arange(0, TILE_QUADS)[None, :]
    at = 4 * first_quad + tl.arange(0, 4 * TILE_QUADS)[None, :]  # along a line
    channel = (tile // TILES) * TILE_CHANNELS + line % TILE_CHANNELS
    if ONE:
        channel = 0
    lane = 0 if BESIDE == 1 else line // TILE_CHANNELS
    block = (channel * (LENGTH // 4) + quad).to(tl.uint32)
    inside = at < LENGTH
    if not ONE:
        inside = inside & (channel < CHANNELS)
    source = channel * LENGTH + at
    if FLAT:
        each = at // PIXELS
        where = (at % PIXELS) * CHANNELS + each
    else:
        each = channel
        where = at * CHANNELS + channel
    scale = 1.0
    shift = 0.0
    if AFFINE:
        scale = tl.load(scales + each, mask=each < CHANNELS)
        shift = tl.load(shifts + each, mask=each < CHANNELS)

    first = tl.program_id(0) * (STEPS * BESIDE)
    first_example, first_rest = locate(rest, example, first, n, WIDE)
    examples, _, held, _ = _step(0, first_rest, first_example, lane, n, last_example, FEW, BESIDE)
    words = tl.load(address + examples).to(tl.uint32)
    h = tl.load(center + examples.to(tl.int64) * SIZE + source, mask=inside)
    for step in range(STEPS):
        examples, draw, oldest, newest = _step(
            step, first_rest, first_example, lane, n, last_example, FEW, BESIDE
        )
        if newest != held:
            held = oldest
            words = tl.load(address + examples).to(tl.uint32)
            h = tl.load(center + examples.to(tl.int64) * SIZE + source, mask=inside)
        draw += first_draw.to(tl.uint32)
        w0, w1, w2, w3 = philox(block, draw, words, purpose.to(tl.uint32), key_low, key_high)
        z0, z1, z2, z3 = noise_of(w0, w1, w2, w3, noise_scale, LAW)
        z = interleave(z0, z1, z2, z3, BESIDE * TILE_CHANNELS, TILE_QUADS)
        x = _finished(h + z, scale, shift, AFFINE, SLOPE)
        row = out + (first + step * BESIDE + lane).to(tl.int64) * SIZE + where
        if CHANNELS == 1:  # as a thread has them: wider stores go through shared memory
            row = tl.max_contiguous(row, (1, 4))
        tl.store(row, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _four(center, address, examples, source, inside, SIZE: tl.constexpr):
    """The examples' words and their features at the four pixels of every block."""
    at = center + examples.to(tl.int64) * SIZE + source
    h0 = tl.load(at, mask=inside)
    h1 = tl.load(at + 1, mask=inside)
    h2 = tl.load(at + 2, mask=inside)
    h3 = tl.load(at + 3, mask=inside)
    return tl.load(address + examples).to(tl.uint32), h0, h1, h2, h3


@triton.jit(do_not_specialize=_LIKE)
def _map_kernel(
    center,
    address,
    out,
    scales,
    shifts,
    blocks,
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
    AFFINE: tl.constexpr,
    SLOPE: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    BESIDE: tl.constexpr,
    STEPS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
    TILE_QUADS: tl.constexpr,
):
    """Blocks of four pixels down, channels across: a block's values go to four lines of `out`.

    The blocks' numbers are read, not computed: what comes of a load keeps its neighbours within a
    thread, so that these are stored as they are. Triton would take computed ones one by one, and
    pass every value through shared memory.
    """
    TILES: tl.constexpr = (PIXELS + 4 * TILE_QUADS - 1) // (4 * TILE_QUADS)
    SIZE: tl.constexpr = CHANNELS * PIXELS
    tile = tl.program_id(1)
    place = tl.arange(0, BESIDE * TILE_QUADS * TILE_CHANNELS)
    line = place // TILE_CHANNELS
    channel = (tile // TILES) * TILE_CHANNELS + place % TILE_CHANNELS
    quad = (tile % TILES) * TILE_QUADS + line % TILE_QUADS
    lane = 0 if BESIDE == 1 else line // TILE_QUADS
    inside = (4 * quad < PIXELS) & (channel < CHANNELS)
    block = tl.load(blocks + quad * CHANNELS + channel, mask=inside, other=0)
    source = 4 * block
    target = 4 * quad * CHANNELS + channel
    scale = 1.0
    shift = 0.0
    if AFFINE:
        scale = tl.load(scales + channel, mask=channel < CHANNELS)
        shift = tl.load(shifts + channel, mask=channel < CHANNELS)

    kind = out.dtype.element_ty
    first = tl.program_id(0) * (STEPS * BESIDE)
    first_example, first_rest = locate(rest, example, first, n, WIDE)
    target = 4 * quad * CHANNELS + channel
    examples, _, held, _ = _step(0, first_rest, first_example, lane, n, last_example, FEW, BESIDE)
    words, h0, h1, h2, h3 = _four(center, address, examples, source, inside, SIZE)
    for step in range(STEPS):
        examples, draw, oldest, newest = _step(
            step, first_rest, first_example, lane, n, last_example, FEW, BESIDE
        )
        if newest != held:
            held = oldest
            words, h0, h1, h2, h3 = _four(center, address, examples, source, inside, SIZE)
        draw += first_draw.to(tl.uint32)
        w0, w1, w2, w3 = philox(
            block.to(tl.uint32), draw, words, purpose.to(tl.uint32), key_low, key_high
        )
        z0, z1, z2, z3 = noise_of(w0, w1, w2, w3, noise_scale, LAW)
        x0 = _finished(h0 + z0, scale, shift, AFFINE, SLOPE)
        x1 = _finished(h1 + z1, scale, shift, AFFINE, SLOPE)
        x2 = _finished(h2 + z2, scale, shift, AFFINE, SLOPE)
        x3 = _finished(h3 + z3, scale, shift, AFFINE, SLOPE)
        row = out + (first + step * BESIDE + lane).to(tl.int64) * SIZE + target
        tl.store(row, x0.to(kind), mask=inside)
        tl.store(row + CHANNELS, x1.to(kind), mask=inside)
        tl.store(row + 2 * CHANNELS, x2.to(kind), mask=inside)
        tl.store(row + 3 * CHANNELS, x3.to(kind), mask=inside)


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
    if not 0 < coordinates <= MAX_COORDINATES:
        raise InvalidArgument(f"Noise takes 1 to 2^30 coordinates, got {coordinates}.")
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
    grid = _grid(config, channels, coordinates, rows)
    at = place(draws, rows)
    tensors: tuple[torch.Tensor | None, ...] = (center, address, out, scale, shift)
    pixels = coordinates // channels
    if _is_map(channels, coordinates):
        tensors = (*tensors, _block_table(channels, pixels, device))
        kernel, options = _map_kernel, {"maxnreg": _MAP_REGISTERS}
    else:
        kernel, options = _line_kernel, {"FLAT": _flat(channels, coordinates)}
    key_low, key_high = key_words(draws.seed)
    kernel[grid](
        *tensors,
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
        AFFINE=scale is not None,
        SLOPE=float(slope),
        FEW=at.n < config.rows,
        WIDE=at.wide,
        BESIDE=config.rows // config.steps,
        STEPS=config.steps,
        TILE_CHANNELS=config.channels,
        TILE_QUADS=config.quads,
        **options,
        num_warps=config.warps,
        num_stages=1,
        enable_fp_fusion=True,
    )


def _grid(config: NoiseConfig, channels: int, coordinates: int, rows: int) -> tuple[int, int]:
    """Programs along the rows and within one, of a configuration that fits the shape."""
    if config.steps < 1 or config.rows % config.steps or rows % config.rows:
        raise InvalidArgument(
            f"`out` must have a multiple of {config.rows} rows, and `steps` must divide that: got "
            f"{rows} rows and {config}."
        )
    flat = _flat(channels, coordinates)
    one_line = flat or channels == 1
    if one_line and config.channels != 1:
        raise InvalidArgument(
            f"{channels} channels of {coordinates // channels} pixels are one line for the kernel: "
            f"`channels` must be 1, got {config}."
        )
    tiles = -(-(coordinates if one_line else coordinates // channels) // (4 * config.quads))
    programs = tiles * (1 if one_line else -(-channels // config.channels))
    if programs > _MAX_GRID:
        raise InvalidArgument(
            f"A draw takes at most {_MAX_GRID} tiles, and {config} gives it {programs}: name more "
            "`quads` or `channels`."
        )
    return rows // config.rows, programs
