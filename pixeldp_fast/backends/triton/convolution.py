"""Convolution, bias, residual and activation in one pass over channels-last maps.

An implicit product: rows are output pixels of all draws, depth is taps times input channels.
Not yet run on a device: checked in Triton's interpreter and by reading compiled code.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from pixeldp_fast.backends.triton.draws import check_tensor, power_of_two
from pixeldp_fast.backends.triton.math import activate, xdot
from pixeldp_fast.errors import InvalidArgument

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class ConvolutionConfig:
    """The tile of one program: `pixels` of the output, `outputs` channels, `depth` a step."""

    pixels: int
    outputs: int
    depth: int
    warps: int = 4
    stages: int = 3


def convolution_config(inputs: int, outputs: int, dtype: torch.dtype) -> ConvolutionConfig:
    """A tile that spills no register, as read from compiled code for sm_80 and sm_90.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    """
    depth = min(max(power_of_two(inputs), 16), 64)
    width = min(max(power_of_two(outputs), 16), 128)
    while width > 32 and -(-outputs // width) * width >= 1.2 * outputs:
        width //= 2  # 320 channels are five tiles of 64, and not three of 128
    if dtype == torch.float32:  # no tensor cores: IEEE products in the ordinary registers
        pixels, warps = (128, 8) if width >= 64 else (64, 4)
        return ConvolutionConfig(pixels, min(width, 64), 16, warps, stages=2)
    return ConvolutionConfig(128, width, depth, warps=8 if width >= 64 else 4)


@triton.jit
def _convolution_kernel(
    x,
    weight,
    bias,
    residual,
    out,
    count,  # output pixels of all rows
    C: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    OUTPUTS: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    OUT_WIDTH: tl.constexpr,
    KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    TOP: tl.constexpr,
    LEFT: tl.constexpr,
    SLOPE: tl.constexpr,
    RESIDUAL: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDE: tl.constexpr,  # output channels of the tile
    DEPTH: tl.constexpr,
):
    OUT_PIXELS: tl.constexpr = OUT_HEIGHT * OUT_WIDTH
    GROUPS: tl.constexpr = (OUTPUTS + WIDE - 1) // WIDE
    STEPS: tl.constexpr = (C + DEPTH - 1) // DEPTH
    program = tl.program_id(0)  # tiles of the same pixels follow each other: they share the input
    o = (program % GROUPS) * WIDE + tl.arange(0, WIDE)
    at = (program // GROUPS).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    row = at // OUT_PIXELS
    pixel = (at % OUT_PIXELS).to(tl.int32)
    y0 = (pixel // OUT_WIDTH) * STRIDE_Y - TOP
    x0 = (pixel % OUT_WIDTH) * STRIDE_X - LEFT
    corner = x + row * (HEIGHT * WIDTH * C) + (y0 * WIDTH + x0) * C
    inside = at < count
    acc = tl.zeros((PIXELS, WIDE), dtype=tl.float32)
    for step in range(KERNEL_HEIGHT * KERNEL_WIDTH * STEPS):
        tap = step // STEPS
        c = (step % STEPS) * DEPTH + tl.arange(0, DEPTH)
        ky = tap // KERNEL_WIDTH
        kx = tap % KERNEL_WIDTH
        seen = inside & (y0 + ky >= 0) & (y0 + ky < HEIGHT) & (x0 + kx >= 0) & (x0 + kx < WIDTH)
        a = tl.load(
            (corner + (ky * WIDTH + kx) * C)[:, None] + c[None, :],
            mask=seen[:, None] & (c < C)[None, :],
            other=0.0,
        )
        w = tl.load(
            weight + (o * (KERNEL_HEIGHT * KERNEL_WIDTH * C))[None, :] + (tap * C + c)[:, None],
            mask=(o < OUTPUTS)[None, :] & (c < C)[:, None],
            other=0.0,
        )
        acc = xdot(a, w, acc)
    kept = inside[:, None] & (o < OUTPUTS)[None, :]
    where = at[:, None] * OUTPUTS + o[None, :]
    acc += tl.load(bias + o[None, :], mask=(o < OUTPUTS)[None, :], other=0.0)
    if RESIDUAL:
        acc += tl.load(residual + where, mask=kept, other=0.0).to(tl.float32)
    tl.store(out + where, activate(acc, SLOPE).to(out.dtype.element_ty), mask=kept)


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor | None,
    out: torch.Tensor,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    slope: float = 1.0,
    config: ConvolutionConfig | None = None,
) -> None:
    """Fill `out` with activation(weight * x + bias + residual), zero padding.

    Parameters
    ----------
    x : float32, bfloat16 or float16 [rows, H, W, C]
        Channels last, contiguous.
    weight : [O, kh, kw, C], of the dtype of `x`
        One group, no dilation.
    bias : float32 [O]
    residual : [rows, H', W', O] of the dtype of `x`, or None
    out : [rows, H', W', O] of the dtype of `x`
        May be `residual` itself.
    stride : (vertical, horizontal)
    padding : (top, bottom), (left, right)
    slope : float
        Of the activation: 1 the identity, 0 ReLU.

    Guarantee
        A row's result depends on that row alone, not on its place or on how many there are.
    Fidelity
        Sums in float32, in the order of taps, then channels; bias and residual are added to them
        before the one rounding to the dtype of `out`.
    """
    if x.ndim != 4 or weight.ndim != 4:
        raise InvalidArgument(
            "`x` must be [rows, H, W, C] and `weight` [O, kh, kw, C], got "
            f"{tuple(x.shape)} and {tuple(weight.shape)}."
        )
    rows, height, width, channels = x.shape
    outputs, kernel_height, kernel_width, _ = weight.shape
    (top, bottom), (left, right) = padding
    if min(stride) < 1 or min(top, bottom, left, right) < 0:
        raise InvalidArgument(
            f"`stride` must be above and `padding` at least 0: {stride}, {padding}."
        )
    out_height = (height + top + bottom - kernel_height) // stride[0] + 1
    out_width = (width + left + right - kernel_width) // stride[1] + 1
    if out_height < 1 or out_width < 1 or 0 in weight.shape:
        raise InvalidArgument(f"A {tuple(weight.shape)} kernel does not fit {tuple(x.shape)} maps.")
    if max(height * width * channels, weight.numel()) >= 2**31:
        raise InvalidArgument("A map and a kernel must have fewer than 2^31 elements.")
    device = x.device
    shape = (rows, out_height, out_width, outputs)
    check_tensor("x", x, (rows, height, width, channels), DTYPES, device)
    expected = (outputs, kernel_height, kernel_width, channels)
    check_tensor("weight", weight, expected, (x.dtype,), device)
    check_tensor("bias", bias, (outputs,), (torch.float32,), device)
    check_tensor("out", out, shape, (x.dtype,), device)
    if residual is not None:
        check_tensor("residual", residual, shape, (x.dtype,), device)
    config = config or convolution_config(channels, outputs, x.dtype)
    count = rows * out_height * out_width
    tiles = -(-count // config.pixels) * -(-outputs // config.outputs)
    if tiles >= 2**31:
        raise InvalidArgument(f"A launch takes fewer than 2^31 tiles, got {tiles}: use fewer rows.")
    _convolution_kernel[(tiles,)](
        x,
        weight,
        bias,
        residual,
        out,
        count,
        C=channels,
        HEIGHT=height,
        WIDTH=width,
        OUTPUTS=outputs,
        OUT_HEIGHT=out_height,
        OUT_WIDTH=out_width,
        KERNEL_HEIGHT=kernel_height,
        KERNEL_WIDTH=kernel_width,
        STRIDE_Y=stride[0],
        STRIDE_X=stride[1],
        TOP=top,
        LEFT=left,
        SLOPE=float(slope),
        RESIDUAL=residual is not None,
        PIXELS=config.pixels,
        WIDE=config.outputs,
        DEPTH=config.depth,
        num_warps=config.warps,
        num_stages=config.stages,
        enable_fp_fusion=True,
    )
