"""The reduction of a real output: a histogram on a fixed grid, and the sums of its two parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast.backends.reduction import SOFT_DRAWS_LIMIT, AbstractReduction
from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.types import FloatArray, IntArray

LARGEST_BINS = 2**16


def grid_edges(low: float, high: float, bins: int) -> FloatArray:
    """The edges of `bins` cells from `low` to `high`, both exact: float64 [bins + 1], ascending."""
    edges = low + (high - low) * (np.arange(bins + 1) / bins)
    edges[-1] = high
    return edges


@dataclass(frozen=True)
class RealHistogram(AbstractReduction):
    """One real output declared to lie in [low, high], kept as counts per cell and sums.

    Counts are (below low, one column per cell [edge, next edge), above high, not finite); an output
    of exactly `high` is in the last cell. Sums and squares are those of the positive and the
    negative part, as fractions of `high` and of -`low` floored to the grid (`RealParts`): an output
    outside counts as the end it is beyond, one that is not finite as `non_finite`.

    Parameters
    ----------
    low, high : float
        Finite, low <= 0 <= high, low < high.
    bins : int
        In [1, 2^16].
    non_finite : float
        In [low, high].

    Guarantee
        A cell's count says of each of its draws only that it is at least the cell's lower edge and
        at most its upper one, compared in float64; whoever bounds a distribution takes the edge
        that weakens the claim.
    """

    low: float
    high: float
    bins: int
    non_finite: float = 0.0

    def __post_init__(self) -> None:
        if not (self.low <= 0 <= self.high and 0 < self.high - self.low < float("inf")):
            raise InvalidArgument(
                f"`low` <= 0 <= `high` must hold, finite and with low < high; got {self.low}, "
                f"{self.high}."
            )
        if not 1 <= self.bins <= LARGEST_BINS or np.any(np.diff(self.edges) <= 0):
            raise InvalidArgument(
                f"`bins` must be from 1 to {LARGEST_BINS}, few enough to differ in float64; got "
                f"{self.bins}."
            )
        if not self.low <= self.non_finite <= self.high:
            raise InvalidArgument(
                f"`non_finite` must lie in [{self.low}, {self.high}], got {self.non_finite}."
            )

    @property
    def edges(self) -> FloatArray:
        """Of the cells, float64 [bins + 1]."""
        return grid_edges(self.low, self.high, self.bins)

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def draws_limit(self) -> int:
        return SOFT_DRAWS_LIMIT

    def reduce(self, outputs: Tensor) -> Tensor:
        value = outputs[:, 0].double()
        finite = torch.isfinite(value)
        counts = torch.bincount(self._columns(value, finite), minlength=self.bins + 3)
        value = torch.where(finite, value, self.non_finite).clamp(self.low, self.high)
        ends = torch.tensor([self.high or 1.0, self.low or -1.0], dtype=torch.float64)
        fractions = (value[:, None] / ends.to(value.device)).clamp(0, 1)  # [rows, 2]
        scores = (fractions * GRID).floor().long()
        return torch.cat([counts, scores.sum(dim=0), (scores * scores).sum(dim=0)])

    def _columns(self, value: Tensor, finite: Tensor) -> Tensor:
        """Each draw's column of the counts, int64 [rows]."""
        edges = torch.from_numpy(self.edges).to(value.device)
        column = torch.bucketize(torch.where(finite, value, 0.0), edges, right=True)
        column = torch.where(value == self.high, self.bins, column)
        return torch.where(finite, column, self.bins + 2)

    def tally(self, totals: IntArray) -> Tally:
        columns = self.bins + 3
        return Tally(
            totals[:, :columns], totals[:, columns : columns + 2], totals[:, columns + 2 :]
        )
