"""From the draws of a real output to an interval: where its statistics and its bounds meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.bounds.distribution import distribution_interval, quantile_levels
from pixeldp_fast.bounds.regression import (
    lemma2_interval,
    tight_mean_interval,
    tight_parts_interval,
)
from pixeldp_fast.errors import RecordError
from pixeldp_fast.smooth.regression_terms import RegressionTerms
from pixeldp_fast.stats.betting import betting_lower, betting_upper
from pixeldp_fast.stats.levels import bonferroni
from pixeldp_fast.stats.mean import (
    empirical_bernstein_lower,
    empirical_bernstein_upper,
    hoeffding_lower,
    hoeffding_upper,
)
from pixeldp_fast.stats.quantile import dkw_width, lower_rank, upper_rank
from pixeldp_fast.types import FloatArray, IntArray

Ends = tuple[FloatArray, FloatArray]  # lower, upper
# A score is a fraction of its end, off by the rounding of one division, then floored.
SCORE_ERROR = 2.0**-52
FLOORED = 1 / GRID + SCORE_ERROR
# The variance that bets are planned for, of the range's square: a regressor's outputs lie close.
_GUESS = 0.01


@dataclass(frozen=True)
class IntervalVerdict:
    """The judged numbers of a batch: float64 [B], and [B, R] for every radius."""

    mean: FloatArray
    lower: FloatArray
    upper: FloatArray


def judge_regression(terms: RegressionTerms, tally: Tally) -> IntervalVerdict:
    """The smoothed output's estimate, and its interval under attack, for every example.

    Guarantee
        For every example apart: with probability at least 1 - alpha over the draws, for all radii
        at once, the expected output (bound "quantile": every quantile of it) at any input within
        the radius in `norm` lies between `lower` and `upper`. Both are rounded outward. The
        estimate itself is not a claim.
    Source
        Lecuyer et al., IEEE S&P 2019, appendix E; Dong, Roth and Su, 2019; Chiang et al., NeurIPS
        2020. `stats` and `bounds` have the numbers.

    Raises
    ------
    RecordError
        When a tally does not hold exactly n draws, or shows that the declared range was left.
    """
    _check_tally(terms, tally)
    lower, upper = _INTERVALS[terms.bound](terms, tally)
    mean = _estimates(terms, tally)
    return IntervalVerdict(mean, np.maximum(lower, terms.low), np.minimum(upper, terms.high))


def outside(tally: Tally) -> IntArray:
    """Draws beyond an end of the declared range, int64 [B]."""
    found: IntArray = tally.counts[:, 0] + tally.counts[:, -2]
    return found


def _check_tally(terms: RegressionTerms, tally: Tally) -> None:
    if tally.counts.shape[1] != terms.bins + 3 or tally.sums is None or tally.squares is None:
        raise RecordError(f"The tally is not one of {terms.bins} cells with sums and squares.")
    if np.any(tally.draws != terms.n):
        raise RecordError(f"The tally is partial: {terms.n} draws per example are needed.")
    if not terms.clip and outside(tally).any():
        raise RecordError("Draws lie outside the declared range, and `clip` is not set.")


def _level(terms: RegressionTerms) -> float:
    return bonferroni(terms.alpha, terms.shares) if terms.shares > 1 else terms.alpha


def _of_parts(interval: Callable[..., Ends]) -> Callable[[RegressionTerms, Tally], Ends]:
    def judged(terms: RegressionTerms, tally: Tally) -> Ends:
        (p_lower, p_upper), (m_lower, m_upper) = (
            (low[:, None], high[:, None]) for low, high in _part_means(terms, tally)
        )
        options = {"tau": terms.tau, "slack": terms.slack}
        rest = terms.low, terms.high, terms.shifts
        lower, _ = interval(terms.mechanism, p_lower, m_upper, *rest, **options)
        _, upper = interval(terms.mechanism, p_upper, m_lower, *rest, **options)
        return lower, upper

    return judged


def _of_mean(terms: RegressionTerms, tally: Tally) -> Ends:
    mean_lower, mean_upper = (end[:, None] for end in _whole_mean(terms, tally))
    rest = terms.low, terms.high, terms.shifts
    options = {"tau": terms.tau, "slack": terms.slack}
    lower, _ = tight_mean_interval(terms.mechanism, mean_lower, *rest, **options)
    _, upper = tight_mean_interval(terms.mechanism, mean_upper, *rest, **options)
    return lower, upper


def _of_distribution(terms: RegressionTerms, tally: Tally) -> Ends:
    width = dkw_width(terms.n, _level(terms))
    surely, maybe = exceedances(terms, tally)
    below = np.maximum(np.nextafter(surely / terms.n - width, -1.0), 0.0)
    above = np.minimum(np.nextafter(maybe / terms.n + width, 2.0), 1.0)
    return distribution_interval(
        terms.mechanism,
        below[:, None],
        above[:, None],
        terms.reduction.edges,
        terms.shifts,
        tau=terms.tau,
        slack=terms.slack,
    )


def _of_quantile(terms: RegressionTerms, tally: Tally) -> Ends:
    levels = quantile_levels(
        terms.mechanism, terms.shifts, terms.quantile, tau=terms.tau, slack=terms.slack
    )
    alpha = _level(terms)
    lower_ranks = lower_rank(terms.n, levels[0], alpha)
    upper_ranks = upper_rank(terms.n, levels[1], alpha)
    return _at_ranks(terms, tally, lower_ranks)[0], _at_ranks(terms, tally, upper_ranks)[1]


_INTERVALS: dict[str, Callable[[RegressionTerms, Tally], Ends]] = {
    "lemma2": _of_parts(lemma2_interval),
    "parts": _of_parts(tight_parts_interval),
    "mean": _of_mean,
    "distribution": _of_distribution,
    "quantile": _of_quantile,
}


def exceedances(terms: RegressionTerms, tally: Tally) -> tuple[IntArray, IntArray]:
    """For every cell, draws surely above all of its points, and maybe above some: int64 [B, M]."""
    counts = _placed(terms, tally)
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]  # from this column on
    return above[:, 2:], above[:, 1:-1]


def _placed(terms: RegressionTerms, tally: Tally) -> IntArray:
    """Counts (below, cells, above), the draws that are not finite at their value: [B, M + 2]."""
    counts = tally.counts[:, :-1].copy()
    place = np.searchsorted(terms.reduction.edges[:-1], terms.non_finite, side="right")
    counts[:, place] += tally.counts[:, -1]
    return counts


def _at_ranks(terms: RegressionTerms, tally: Tally, ranks: IntArray) -> Ends:
    """Lower and upper edge of the cell that holds the draw of each rank: float64 [B, R].

    Rank 0 is below every draw and n + 1 above.
    """
    edges = terms.reduction.edges
    first = np.concatenate([edges[:1], edges[:-1], edges[-1:]])
    last = np.concatenate([edges[:1], edges[1:], edges[-1:]])
    reached = np.cumsum(_placed(terms, tally), axis=1)  # [B, M + 2]
    columns = np.stack([np.searchsorted(row, ranks, side="left") for row in reached])
    columns = np.minimum(columns, len(first) - 1)
    lower = np.where(ranks < 1, terms.low, first[columns])
    upper = np.where(ranks > terms.n, terms.high, last[columns])
    return lower, upper


def _part_means(terms: RegressionTerms, tally: Tally) -> tuple[Ends, Ends]:
    """Confidence bounds of E A+ and E A-, each end at its share of alpha."""
    assert tally.sums is not None
    assert tally.squares is not None
    found = []
    for part, top in enumerate((terms.high, -terms.low)):
        if top == 0:
            zero = np.zeros(len(tally))
            found.append((zero, zero))
            continue
        moments = [
            (Fraction(int(s), GRID), Fraction(int(q), GRID**2))
            for s, q in zip(tally.sums[:, part], tally.squares[:, part], strict=True)
        ]
        lower, upper = _mean_ends(moments, terms, 0.0, 1.0)
        lower = np.maximum(lower - SCORE_ERROR, 0.0)
        upper = np.minimum(np.nextafter(upper + FLOORED, 2.0), 1.0)
        found.append((rounding.down(lower * top), np.minimum(rounding.up(upper * top), top)))
    return found[0], found[1]


def _whole_mean(terms: RegressionTerms, tally: Tally) -> Ends:
    """Confidence bounds of E A, each end at its share of alpha."""
    assert tally.sums is not None
    assert tally.squares is not None
    high, low = Fraction(terms.high), Fraction(terms.low)
    moments = [
        (
            (high * int(s[0]) + low * int(s[1])) / GRID,
            (high**2 * int(q[0]) + low**2 * int(q[1])) / GRID**2,  # of each draw one part is 0
        )
        for s, q in zip(tally.sums, tally.squares, strict=True)
    ]
    lower, upper = _mean_ends(moments, terms, terms.low, terms.high)
    fall = rounding.up(FLOORED * -terms.low + SCORE_ERROR * terms.high)
    rise = rounding.up(FLOORED * terms.high + SCORE_ERROR * -terms.low)
    lower, upper = np.nextafter(lower - fall, -np.inf), np.nextafter(upper + rise, np.inf)
    return np.clip(lower, terms.low, terms.high), np.clip(upper, terms.low, terms.high)


def _mean_ends(
    moments: list[tuple[Fraction, Fraction]], terms: RegressionTerms, low: float, high: float
) -> Ends:
    """Both confidence bounds of a mean from the exact sums of its scores and of their squares."""
    n, level = terms.n, _level(terms)
    below, above, variance = (np.empty(len(moments)) for _ in range(3))
    for i, (total, square) in enumerate(moments):
        nearest = float(total / n)
        below[i] = np.clip(np.nextafter(nearest, -np.inf), low, high)
        above[i] = np.clip(np.nextafter(nearest, np.inf), low, high)
        spread = (n * square - total**2) / (n * max(n - 1, 1))
        variance[i] = np.nextafter(float(spread), np.inf)
    if terms.mean_bound == "hoeffding":
        return (
            hoeffding_lower(below, n, level, low, high),
            hoeffding_upper(above, n, level, low, high),
        )
    if terms.mean_bound == "bernstein":
        return (
            empirical_bernstein_lower(below, variance, n, level, low, high),
            empirical_bernstein_upper(above, variance, n, level, low, high),
        )
    guess = _GUESS * (high - low) ** 2
    return (
        betting_lower(below, variance, n, level, low, high, guess=guess),
        betting_upper(above, variance, n, level, low, high, guess=guess),
    )


def _estimates(terms: RegressionTerms, tally: Tally) -> FloatArray:
    """The mean of the draws, or the middle of the cell of their quantile: float64 [B]."""
    if terms.bound == "quantile":
        rank = np.array([max(1, int(np.ceil(terms.quantile * terms.n)))])
        lower, upper = _at_ranks(terms, tally, rank)
        middle: FloatArray = (lower + (upper - lower) / 2)[:, 0]
        return middle
    assert tally.sums is not None
    scale = np.array([terms.high, terms.low]) / (float(GRID) * terms.n)
    mean: FloatArray = tally.sums @ scale
    return mean
