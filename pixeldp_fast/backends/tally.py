"""What an engine returns: integers, which add up the same in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.types import IntArray

GRID = 2**20  # soft scores are floored to multiples of 1/GRID, so that their sums are integers


@dataclass(frozen=True, eq=False)
class Tally:
    """The outcome of draws, additive over any split of them.

    Parameters
    ----------
    counts : int64 [B, K + 1]
        Draws per class; the last column counts draws with a non-finite output.
    sums, squares : int64 [B, S] or None
        Sums of scores in units of 1/GRID, and of their squares in units of 1/GRID^2.
    """

    counts: IntArray
    sums: IntArray | None = None
    squares: IntArray | None = None

    def __post_init__(self) -> None:
        if self.counts.ndim != 2 or self.counts.dtype != np.int64 or np.any(self.counts < 0):
            raise InvalidArgument("`counts` must be int64 [B, K + 1] of at least 0.")

    @property
    def draws(self) -> IntArray:
        """Draws per example, int64 [B]."""
        total: IntArray = self.counts.sum(axis=1)
        return total

    def __len__(self) -> int:
        return len(self.counts)

    def __add__(self, other: Tally) -> Tally:
        if self.counts.shape != other.counts.shape or (self.sums is None) != (other.sums is None):
            raise InvalidArgument("Only tallies of the same examples and reduction add up.")
        return Tally(
            self.counts + other.counts,
            None if self.sums is None or other.sums is None else self.sums + other.sums,
            None if self.squares is None or other.squares is None else self.squares + other.squares,
        )

    def take(self, rows: IntArray | slice) -> Tally:
        """The tally of some of the examples."""
        return Tally(
            self.counts[rows],
            None if self.sums is None else self.sums[rows],
            None if self.squares is None else self.squares[rows],
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return all(
            np.array_equal(a, b) if a is not None and b is not None else a is b
            for a, b in (
                (self.counts, other.counts),
                (self.sums, other.sums),
                (self.squares, other.squares),
            )
        )

    __hash__ = None  # type: ignore[assignment]


def merge(tallies: list[Tally]) -> Tally:
    """The tallies of different examples, one below the other."""

    def stack(parts: list[IntArray | None]) -> IntArray | None:
        kept = [p for p in parts if p is not None]
        return np.concatenate(kept) if kept else None

    return Tally(
        np.concatenate([t.counts for t in tallies]),
        stack([t.sums for t in tallies]),
        stack([t.squares for t in tallies]),
    )
