"""Which draws of which examples a launch computes, and the scalars that kernels read for it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import WORD_LIMIT, check_draws

LAWS = ("Gaussian", "Laplace", "Uniform")  # by `native_law`
_INT32_ROWS = 2**31


class Draws(NamedTuple):
    """Rows [first_row, first_row + rows) of a call over `examples` x `n` draws.

    Row g of the call is example g // n, draw first_draw + g % n. Rows from examples x n on are
    padding: computed from the last example, never counted.

    Parameters
    ----------
    law : int
        0 Gaussian, 1 Laplace, 2 uniform: `native_law` of the mechanism.
    scale : float
        Above 0, in the units of the noise point.
    seed : int
        In [0, 2^64).
    purpose : int
    first_draw, n : int
        Draws of every example; n at least 1, within 32 bits.
    examples : int
        At least 1.
    first_row : int
        At least 0.
    """

    law: int
    scale: float
    seed: int
    purpose: int
    first_draw: int
    n: int
    examples: int
    first_row: int


class Rows(NamedTuple):
    """Where a launch's first row stands, as kernels take it."""

    rest: int  # of the first row, behind the first draw of `example`
    example: int
    n: int
    examples: int
    valid: int  # rows that are no padding
    wide: bool  # row numbers pass 31 bits


def place(draws: Draws, rows: int) -> Rows:
    """The launch of `rows` rows at `draws.first_row`."""
    if not 0 <= draws.law < len(LAWS):
        raise InvalidArgument(f"`law` must be 0, 1 or 2, for {', '.join(LAWS)}; got {draws.law}.")
    if draws.n < 1 or draws.examples < 1 or draws.first_row < 0:
        raise InvalidArgument(
            "`n` and `examples` must be at least 1 and `first_row` at least 0, got "
            f"{draws.n}, {draws.examples}, {draws.first_row}."
        )
    if not 0 < rows < _INT32_ROWS or draws.examples >= _INT32_ROWS:
        raise InvalidArgument(f"A launch takes 1 to 2^31 - 1 rows and examples, got {rows} rows.")
    check_draws(draws.first_draw, draws.n)
    total = draws.examples * draws.n
    wide = draws.n + rows >= _INT32_ROWS
    if draws.first_row >= total:
        return Rows(0, draws.examples - 1, draws.n, draws.examples, 0, wide)
    example, rest = divmod(draws.first_row, draws.n)
    valid = min(rows, total - draws.first_row)
    return Rows(rest, example, draws.n, draws.examples, valid, wide)


def signed(word: int) -> int:
    """The bits of `word` as a signed integer, so that kernels see one type whatever the value."""
    return word - WORD_LIMIT if word >= WORD_LIMIT // 2 else word


def key_words(seed: int) -> tuple[int, int]:
    """Low and high word of the seed, signed."""
    return signed(seed & (WORD_LIMIT - 1)), signed(seed >> 32)


def check_tensor(
    name: str,
    tensor: torch.Tensor,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
) -> None:
    """Refuse a tensor that a kernel would read wrongly."""
    if tuple(tensor.shape) != shape:
        raise InvalidArgument(f"`{name}` must have shape {shape}, got {tuple(tensor.shape)}.")
    if tensor.dtype not in dtypes:
        raise InvalidArgument(f"`{name}` must be one of {dtypes}, got {tensor.dtype}.")
    if tensor.device != device:
        raise InvalidArgument(f"`{name}` must be on {device}, got {tensor.device}.")
    if not tensor.is_contiguous():
        raise InvalidArgument(f"`{name}` must be contiguous.")


def power_of_two(value: int) -> int:
    """The least power of two that is at least `value`."""
    return 1 << max(value - 1, 0).bit_length()
