"""What is kept of a draw's outputs: a vote, a row of soft scores, or the parts of a real output."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch
from torch import Tensor

from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import WORD_LIMIT
from pixeldp_fast.types import IntArray

SOFT_DRAWS_LIMIT = 2**22  # squares of up to GRID^2 stay within int64


class AbstractReduction(abc.ABC):
    """Turns outputs [rows, K] into one row of integers, the same whatever the order of the rows."""

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Columns of the network's output."""

    @abc.abstractmethod
    def reduce(self, outputs: Tensor) -> Tensor:
        """The rows' integers, summed: int64 [width], on the device of `outputs`."""

    @abc.abstractmethod
    def tally(self, totals: IntArray) -> Tally:
        """The tally that totals [B, width] stand for."""

    @property
    @abc.abstractmethod
    def draws_limit(self) -> int:
        """The most draws whose sums fit their integers."""

    def check_draws(self, n: int) -> None:
        """Refuse a number of draws whose sums could overflow."""
        if n > self.draws_limit:
            raise InvalidArgument(
                f"{type(self).__name__} takes at most {self.draws_limit} draws at once, got {n}."
            )


def _finite_rows(outputs: Tensor) -> Tensor:
    return torch.isfinite(outputs).all(dim=1)


@dataclass(frozen=True)
class Votes(AbstractReduction):
    """One vote per draw: the largest output; ties to the lowest class; non-finite ones apart."""

    num_classes: int

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    @property
    def draws_limit(self) -> int:
        return WORD_LIMIT

    def reduce(self, outputs: Tensor) -> Tensor:
        votes = outputs.argmax(dim=1)
        votes = torch.where(_finite_rows(outputs), votes, self.num_classes)
        return torch.bincount(votes, minlength=self.num_classes + 1)

    def tally(self, totals: IntArray) -> Tally:
        return Tally(totals)


@dataclass(frozen=True)
class SoftmaxSums(AbstractReduction):
    """Votes, and the softmax scores floored to the grid, with their squares.

    Guarantee
        A row's scores sum to at most 1 as computed; a non-finite row scores 0 for every class.
    """

    num_classes: int

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    def reduce(self, outputs: Tensor) -> Tensor:
        finite = _finite_rows(outputs)
        safe = torch.where(finite[:, None], outputs.double(), 0.0)
        scores = (torch.softmax(safe, dim=1) * GRID).floor().long() * finite[:, None]  # [rows, K]
        votes = Votes(self.num_classes).reduce(outputs)
        return torch.cat([votes, scores.sum(dim=0), (scores * scores).sum(dim=0)])

    def tally(self, totals: IntArray) -> Tally:
        k = self.num_classes
        return Tally(totals[:, : k + 1], totals[:, k + 1 : 2 * k + 1], totals[:, 2 * k + 1 :])

    @property
    def draws_limit(self) -> int:
        return SOFT_DRAWS_LIMIT


@dataclass(frozen=True)
class RealParts(AbstractReduction):
    """Positive and negative part of one real output declared to lie in [low, high].

    The parts are scored as fractions of `high` and of -`low`, floored to the grid: a part's mean
    lies in [sum, sum + draws] / GRID / draws of its end. Counts are (inside, elsewhere or NaN).
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high or self.low == self.high:
            raise InvalidArgument(
                f"`low` <= 0 <= `high` must hold, with low < high; got {self.low}, {self.high}."
            )

    @property
    def num_outputs(self) -> int:
        return 1

    def reduce(self, outputs: Tensor) -> Tensor:
        value = outputs[:, 0].double()
        inside = (value >= self.low) & (value <= self.high)  # False for NaN
        value = torch.where(inside, value, 0.0)
        ends = torch.tensor([self.high or 1.0, self.low or -1.0], dtype=torch.float64)
        fractions = (value[:, None] / ends.to(value.device)).clamp(0, 1)  # [rows, 2]
        scores = (fractions * GRID).floor().long()
        counts = torch.stack([inside.sum(), (~inside).sum()])
        return torch.cat([counts, scores.sum(dim=0), (scores * scores).sum(dim=0)])

    def tally(self, totals: IntArray) -> Tally:
        return Tally(totals[:, :2], totals[:, 2:4], totals[:, 4:])

    @property
    def draws_limit(self) -> int:
        return SOFT_DRAWS_LIMIT
