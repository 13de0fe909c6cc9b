"""Both ends of an interval from what is kept of the draws, by their definitions, in 40 digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import cast

from pixeldp_fast.verify.arithmetic import Real, exactly, mp
from pixeldp_fast.verify.intervals import is_lower_bound, is_upper_bound
from pixeldp_fast.verify.means import GRID, Sums, is_below
from pixeldp_fast.verify.regression_claim import IntervalClaim

GUESS = Fraction(0.01)  # the variance, of the range's square, that bets are planned for
_HALVINGS = 60
# An end and how far outside of it a stored one may still lie: for ranks, the next draw's.
End = tuple[Real, Real]


@dataclass(frozen=True)
class Moments:
    """Mean and variance (divided by n) of n scores in [0, 1], as `means` takes them."""

    n: int
    mean: Fraction
    spread: Fraction
    guess: Fraction = GUESS

    def mirrored(self) -> Moments:
        """Of one minus every score."""
        return Moments(self.n, 1 - self.mean, self.spread, self.guess)


@dataclass(frozen=True)
class Kept:
    """One example's draws: counts (below, cells, above, not finite), sums of both parts."""

    claim: IntervalClaim
    counts: list[int]
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    def faults(self) -> Iterator[tuple[str, str]]:
        """What no n draws could have left, by field."""
        n, claim = sum(self.counts), self.claim
        if n != claim.n:
            yield "tally.counts", f"holds {n} draws, not {claim.n}"
        if not claim.clip and self.counts[0] + self.counts[-2]:
            yield "tally.counts", "holds draws beyond the range, and `clip` is not set"
        for total, square in zip(self.sums, self.squares, strict=True):
            if not total * total <= n * square <= n * total * GRID:
                yield "tally.squares", f"{square} do not fit the sum {total}"
        least, most = self._possible()
        slack = Fraction(n, GRID) * Fraction(claim.high - claim.low)
        if not least - slack <= self.total <= most + slack:
            yield "tally.sums", "do not fit the counts"

    @cached_property
    def total(self) -> Fraction:
        """Sum of the outputs."""
        positive, negative = (Fraction(total, GRID) for total in self.sums)
        return Fraction(self.claim.high) * positive + Fraction(self.claim.low) * negative

    def _possible(self) -> tuple[Fraction, Fraction]:
        """The smallest and the largest sum of outputs that the counts allow."""
        ends = self.edges
        return (
            sum((c * edge for c, edge in zip(self.placed, ends, strict=False)), Fraction(0)),
            sum((c * edge for c, edge in zip(self.placed, ends[1:], strict=True)), Fraction(0)),
        )

    @cached_property
    def placed(self) -> list[int]:
        """Counts (below, cells, above), those that are not finite at their declared value."""
        counts = list(self.counts[:-1])
        inner = self.edges[1:-2]
        counts[sum(edge <= Fraction(self.claim.non_finite) for edge in inner)] += self.counts[-1]
        return counts

    @cached_property
    def edges(self) -> list[Fraction]:
        """low, the cells' edges from low to high, high: of (below, cells, above)."""
        low, high = Fraction(self.claim.low), Fraction(self.claim.high)
        cells = [low + (high - low) * i / self.claim.bins for i in range(self.claim.bins + 1)]
        return [low, *cells, high]

    def part(self, which: int) -> Moments:
        """Of the scores of the positive part (0) or the negative one (1)."""
        n = self.claim.n
        mean = Fraction(self.sums[which], n * GRID)
        return Moments(n, mean, Fraction(self.squares[which], n * GRID**2) - mean**2)

    def whole(self) -> Moments:
        """Of (output - low)/(high - low), with both parts floored."""
        low, high, n = Fraction(self.claim.low), Fraction(self.claim.high), self.claim.n
        squares = [Fraction(square, GRID**2) for square in self.squares]
        mean = self.total / n
        spread = (high**2 * squares[0] + low**2 * squares[1]) / n - mean**2
        return Moments(n, (mean - low) / (high - low), spread / (high - low) ** 2)


class Ends:
    """The ends of one claim's intervals; curves and ranks are kept from one example to the next."""

    def __init__(self, claim: IntervalClaim) -> None:
        self.claim = claim
        self._curve: dict[tuple[int, Fraction], Real] = {}
        self._ranks: dict[int, tuple[int, int]] = {}
        self._bounds: dict[Moments, tuple[Real, Real]] = {}

    def middle(self, kept: Kept) -> Real:
        """The mean of the draws, or the middle of the cell of their quantile."""
        if self.claim.bound != "quantile":
            return exactly(kept.total / self.claim.n)
        column = _column(kept, max(1, math.ceil(self.claim.quantile * self.claim.n)))
        return exactly((kept.edges[column] + kept.edges[column + 1]) / 2)

    def at(self, kept: Kept, r: int) -> tuple[End, End]:
        """Lower and upper end at the radius of number r."""
        claim = self.claim
        if claim.bound == "quantile":
            return self._of_ranks(kept, r)
        if claim.bound == "distribution":
            lower, upper = self._of_distribution(kept, r)
        elif claim.bound == "mean":
            lower, upper = self._of_mean(kept, r)
        else:
            lower, upper = self._of_parts(kept, r)
        lower, upper = max(lower, exactly(claim.low)), min(upper, exactly(claim.high))
        return (lower, lower), (upper, upper)

    def _tradeoff(self, size: Fraction, r: int) -> Real:
        known = self._curve.get((r, size))
        if known is None:
            known = self._curve[r, size] = self._worst(exactly(size), r)
        return known

    def _worst(self, size: Real, r: int) -> Real:
        """T(size + tau) - tau: the curve of the law that is sampled, not below 0."""
        m, tau = mp(), exactly(self.claim.tau)
        ideal = self.claim.law.tradeoff(min(size + tau, m.mpf(1)), exactly(self.claim.ratio(r)))
        return max(ideal - tau, m.mpf(0))

    def _of_mean(self, kept: Kept, r: int) -> tuple[Real, Real]:
        low, high = exactly(self.claim.low), exactly(self.claim.high)
        below, above = self._confidence(kept.whole())
        step = mp().mpf(1) / GRID / (high - low)  # what flooring took from either part
        below, above = max(below + low * step, mp().mpf(0)), min(above + high * step, mp().mpf(1))
        width = high - low
        return low + width * self._worst(1 - below, r), high - width * self._worst(above, r)

    def _of_parts(self, kept: Kept, r: int) -> tuple[Real, Real]:
        tops = exactly(self.claim.high), -exactly(self.claim.low)
        ends = []
        for which, top in enumerate(tops):
            below, above = self._confidence(kept.part(which)) if top else (mp().mpf(0),) * 2
            floored = min(above + mp().mpf(1) / GRID, mp().mpf(1)) if top else above
            ends.append((top * below, top * floored))
        (positive, more), (negative, less) = ends
        if self.claim.bound == "lemma2":
            upper = self._lemma2(more, negative, tops[1], tops[0], r)
            return -self._lemma2(less, positive, tops[0], tops[1], r), upper
        return (
            self._least(positive, tops[0], r) - self._most(less, tops[1], r),
            self._most(more, tops[0], r) - self._least(negative, tops[1], r),
        )

    def _least(self, mean: Real, top: Real, r: int) -> Real:
        return top * self._worst(1 - mean / top, r) if top else mean

    def _most(self, mean: Real, top: Real, r: int) -> Real:
        return top * (1 - self._worst(mean / top, r)) if top else mean

    def _lemma2(self, gain: Real, loss: Real, depth: Real, height: Real, r: int) -> Real:
        """The least upper end over epsilon: a golden section of a function with one valley.

        Both means are moved outward by tau before, and the end after.
        """
        m, ratio, tau = mp(), exactly(self.claim.ratio(r)), exactly(self.claim.tau)
        gain, loss = min(gain + height * tau, height), max(loss - depth * tau, m.mpf(0))

        def end(epsilon: Real) -> Real:
            grow = m.exp(epsilon)
            leak = (height + depth / grow) * self.claim.law.profile(epsilon, ratio)
            return grow * gain - loss / grow + leak

        top = m.log((height + loss) / gain) if gain > 0 else m.mpf(60)
        grid = [max(top, m.mpf(0)) * (m.mpf(i) / 60) ** 2 for i in range(61)]
        best = min(range(61), key=lambda i: end(grid[i]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 60)]
        for _ in range(50):
            left, right = low + (high - low) * 0.382, low + (high - low) * 0.618
            low, high = (low, right) if end(left) <= end(right) else (left, high)
        return min(end(low), end(grid[best])) + (height + depth) * tau

    def _of_distribution(self, kept: Kept, r: int) -> tuple[Real, Real]:
        claim, m = self.claim, mp()
        band = Fraction(float(m.sqrt(m.log(2 / exactly(claim.level)) / (2 * claim.n))))
        above = list(accumulate(reversed(kept.placed)))[::-1]  # draws from each column on
        surely, maybe = above[2:], above[1:-1]
        cell = exactly(Fraction(claim.high) - Fraction(claim.low)) / claim.bins
        gained = m.fsum(self._tradeoff(min(1 - Fraction(k, claim.n) + band, Fraction(1)), r)
                        for k in surely)  # fmt: skip
        lost = m.fsum(self._tradeoff(min(Fraction(k, claim.n) + band, Fraction(1)), r)
                      for k in maybe)  # fmt: skip
        return exactly(claim.low) + cell * gained, exactly(claim.high) - cell * lost

    def _of_ranks(self, kept: Kept, r: int) -> tuple[End, End]:
        if r not in self._ranks:
            self._ranks[r] = self._find_ranks(r)
        first, last = self._ranks[r]
        below = [_edge(kept, rank, 0) for rank in (first, max(first - 1, 0))]
        above = [_edge(kept, rank, 1) for rank in (last, min(last + 1, self.claim.n + 1))]
        # The edges are rounded where the draws were counted, by far less than this.
        free = exactly(Fraction(self.claim.high) - Fraction(self.claim.low)) * mp().mpf(10) ** -14
        return (below[0] + free, below[1] + free), (above[0] - free, above[1] - free)

    def _find_ranks(self, r: int) -> tuple[int, int]:
        n, level, q = self.claim.n, self.claim.level, exactly(self.claim.quantile)
        p_lower = self._largest_size(r, 1 - q)
        p_upper = 1 - self._largest_size(r, q)
        first = _largest(lambda rank: is_upper_bound(p_lower, rank - 1, n, level), n)
        last = _largest(lambda rank: not is_lower_bound(p_upper, rank, n, level), n) + 1
        return first, last

    def _largest_size(self, r: int, floor: Real) -> Fraction:
        """The largest size of a test whose type II error is above `floor`; 0 where none is."""
        low, high = Fraction(0), Fraction(1)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = self._worst(exactly(middle), r) > floor
            low, high = (middle, high) if above else (low, middle)
        return low

    def _confidence(self, moments: Moments) -> tuple[Real, Real]:
        """Both confidence bounds of a mean, each at the claim's level."""
        if moments not in self._bounds:
            self._bounds[moments] = self._below(moments), 1 - self._below(moments.mirrored())
        return self._bounds[moments]

    def _below(self, moments: Moments) -> Real:
        """The largest number that the draws prove to be at most the mean."""
        low, high = Fraction(0), max(moments.mean, Fraction(0))
        name, level = self.claim.mean_bound, self.claim.level
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            proved = is_below(name, middle, cast(Sums, moments), level)
            low, high = (middle, high) if proved else (low, middle)
        return exactly(low)


def _largest(holds: Callable[[int], bool], top: int) -> int:
    """The last of 1 to `top` at which `holds`, that once false stays false; else 0."""
    low, high = 0, top + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _column(kept: Kept, rank: int) -> int:
    """Where the draw of this rank was counted."""
    return next(i for i, reached in enumerate(accumulate(kept.placed)) if reached >= rank)


def _edge(kept: Kept, rank: int, side: int) -> Real:
    """The lower (0) or upper (1) edge of that draw's cell; rank 0 is `low`, n + 1 `high`."""
    if not 1 <= rank <= kept.claim.n:
        return exactly(kept.claim.low if rank < 1 else kept.claim.high)
    return exactly(kept.edges[_column(kept, rank) + side])
