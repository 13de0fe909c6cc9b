"""Addressed randomness: the word at (seed, purpose, example, draw, coordinate) is a pure function.

Philox4x32-10 with the 64-bit seed as key and the counter (coordinate block, draw, example,
purpose). Nothing is consumed: the tally of 1 000 draws equals the sum over any split, in any order,
on any device. Coordinate j counts the logical [C, H, W] tensor at the noise point in C order. A
float coordinate takes one word of a block, a lattice coordinate two, the high one first.
"""

from __future__ import annotations

import operator
import secrets
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from pixeldp_fast.errors import InvalidArgument

WORD_LIMIT = 2**32
SHARED_EXAMPLE = WORD_LIMIT - 1  # the example word reserved for draws shared between examples
WORDS_PER_BLOCK = 4


class Purpose(IntEnum):
    """What draws are for; draws of different purposes never coincide."""

    SELECTION = 0
    ESTIMATION = 1
    PREDICTION = 2
    TRAINING = 3
    ATTACK = 4
    VERIFICATION = 5

    @classmethod
    def parse(cls, value: Any) -> Purpose:
        """A `Purpose`, its number, or its name in any case."""
        try:
            return cls[value.upper()] if isinstance(value, str) else cls(value)
        except (KeyError, ValueError):
            names = ", ".join(repr(p.name.lower()) for p in cls)
            raise InvalidArgument(f"`purpose` must be one of {names}, got {value!r}.") from None


@dataclass(frozen=True)
class Stream:
    """The random words of one seed and purpose.

    Parameters
    ----------
    seed : int
        In [0, 2^64).
    purpose : Purpose

    Source
        Salmon et al., SC 2011 (Random123), Philox4x32 with ten rounds.
    """

    seed: int
    purpose: Purpose

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "purpose", Purpose.parse(self.purpose))

    @property
    def key(self) -> tuple[int, int]:
        """The seed's low and high 32 bits."""
        return self.seed & 0xFFFFFFFF, self.seed >> 32


def new_seed() -> int:
    """A fresh 64-bit seed from the operating system."""
    return secrets.randbits(64)


def checked_seed(seed: Any) -> int:
    """`seed` as an int in [0, 2^64)."""
    try:
        value = operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < 2**64:
        raise InvalidArgument(f"`seed` must be an integer in [0, 2^64), got {seed!r}.")
    return value


def checked_index(index: Any) -> npt.NDArray[np.uint32]:
    """Example addresses as uint32 [B], each below 2^32 - 1."""
    values = np.atleast_1d(np.asarray(index))
    if values.ndim != 1 or not (values.dtype.kind in "iu" or values.size == 0):
        raise InvalidArgument(f"`index` must hold integers [B], got {index!r}.")
    if values.size and not (values.min() >= 0 and values.max() < SHARED_EXAMPLE):
        raise InvalidArgument("`index` must lie in [0, 2^32 - 2] for every example.")
    return values.astype(np.uint32)


def check_draws(first_draw: int, n: int) -> None:
    """Refuse a range of draws that does not fit the counter's 32 bits."""
    if first_draw < 0 or n < 0 or first_draw + n > WORD_LIMIT:
        raise InvalidArgument(
            f"Draws [{first_draw}, {first_draw + n}) must lie within [0, 2^32); use another seed "
            "or another example index for more."
        )


def blocks_for(coordinates: int, words_each: int = 1) -> int:
    """Blocks of four words that cover `coordinates` coordinates; their number fits 32 bits."""
    per_block = WORDS_PER_BLOCK // words_each
    blocks = -(-coordinates // per_block)
    if blocks > WORD_LIMIT:
        limit = (WORD_LIMIT * per_block).bit_length() - 1
        raise InvalidArgument(
            f"{coordinates} coordinates do not fit the counter: at most 2^{limit}."
        )
    return blocks
