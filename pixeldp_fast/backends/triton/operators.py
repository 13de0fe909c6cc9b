"""The noise and the heads as operators of torch: what compiles, traces or captures sees them.

Importing this module imports Triton. Scalars travel as lists of integers, since an operator's
arguments are of few types: a launch's draws as `words_of`, a configuration as its fields in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pixeldp_fast.backends.triton import convolution, heads, noise
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.runs import FOREIGN

_SEEDS = 2**64


def words_of(draws: Draws) -> list[int]:
    """All of a launch's draws but their scale; the seed as a signed integer of 64 bits."""
    seed = draws.seed - _SEEDS if draws.seed >= _SEEDS // 2 else draws.seed
    return [draws.law, seed, *draws[3:]]


def _draws(scale: float, words: Sequence[int]) -> Draws:
    law, seed, *others = words
    return Draws(law, scale, seed % _SEEDS, *others)


def fields_of(config: Any) -> list[int]:
    """A configuration's fields, in order."""
    return list(dataclasses.astuple(config))


@torch.library.custom_op("pixeldp_fast::noisy", mutates_args=("out",))
def noisy(
    center: Tensor,
    address: Tensor,
    out: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    channels: int,
    slope: float,
    noise_scale: float,
    words: list[int],
    config: list[int],
) -> None:
    """`noise.noisy`."""
    noise.noisy(
        center,
        address,
        _draws(noise_scale, words),
        out,
        channels=channels,
        scale=scale,
        shift=shift,
        slope=slope,
        config=noise.NoiseConfig(*config),
    )


@torch.library.custom_op("pixeldp_fast::count", mutates_args=("table",))
def count(logits: Tensor, table: Tensor, words: list[int], scores: str, config: list[int]) -> None:
    """`heads.count`."""
    heads.count(logits, _draws(1.0, words), table, scores=scores, config=heads.HeadConfig(*config))


@torch.library.custom_op("pixeldp_fast::pool_dense_count", mutates_args=("table",))
def pool_dense_count(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    table: Tensor,
    words: list[int],
    scores: str,
    config: list[int],
) -> None:
    """`heads.pool_dense_count`."""
    heads.pool_dense_count(
        x,
        weight,
        bias,
        _draws(1.0, words),
        table,
        scores=scores,
        config=heads.HeadConfig(*config),
    )


@torch.library.custom_op("pixeldp_fast::dense_dense_count", mutates_args=("table",))
def dense_dense_count(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    table: Tensor,
    words: list[int],
    slope: float,
    scores: str,
    config: list[int],
) -> None:
    """`heads.dense_dense_count`."""
    heads.dense_dense_count(
        x,
        w1,
        b1,
        w2,
        b2,
        _draws(1.0, words),
        table,
        slope=slope,
        scores=scores,
        config=heads.HeadConfig(*config),
    )


@torch.library.custom_op("pixeldp_fast::convolve", mutates_args=())
def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    slope: float,
    config: list[int],
) -> Tensor:
    """`convolution.convolve` into a new tensor; padding is (top, bottom, left, right)."""
    out = x.new_empty(_convolved(x, weight, stride, padding))
    top, bottom, left, right = padding
    convolution.convolve(
        x,
        weight,
        bias,
        residual,
        out,
        stride=(stride[0], stride[1]),
        padding=((top, bottom), (left, right)),
        slope=slope,
        config=convolution.ConvolutionConfig(*config),
    )
    return out


@convolve.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    slope: float,
    config: list[int],
) -> Tensor:
    return x.new_empty(_convolved(x, weight, stride, padding))


def _convolved(x: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> list[int]:
    rows, height, width, _ = x.shape
    outputs, kernel_height, kernel_width, _ = weight.shape
    top, bottom, left, right = padding
    return [
        rows,
        (height + top + bottom - kernel_height) // stride[0] + 1,
        (width + left + right - kernel_width) // stride[1] + 1,
        outputs,
    ]


@torch.library.custom_op("pixeldp_fast::foreign", mutates_args=())
def foreign(inputs: list[Tensor], number: int, shape: list[int]) -> Tensor:
    """The run that `runs.FOREIGN` knows by this number, into a new tensor [rows, *shape]."""
    out = inputs[0].new_empty([len(inputs[0]), *shape])
    FOREIGN[number].launch([each.contiguous() for each in inputs], out)
    return out


@foreign.register_fake
def _(inputs: list[Tensor], number: int, shape: list[int]) -> Tensor:
    return inputs[0].new_empty([inputs[0].shape[0], *shape])


def _nothing(*_: Any) -> None:
    """What an operator that only writes into its arguments does to their shapes."""


for _operator in (noisy, count, pool_dense_count, dense_dense_count):
    _operator.register_fake(_nothing)
