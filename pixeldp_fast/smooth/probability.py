"""From tallies to probabilities: which bound, at which share of alpha, against which competitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.errors import RecordError
from pixeldp_fast.stats.betting import betting_lower
from pixeldp_fast.stats.binomial import clopper_pearson_lower, clopper_pearson_upper
from pixeldp_fast.stats.levels import bonferroni
from pixeldp_fast.stats.mean import empirical_bernstein_lower, hoeffding_lower
from pixeldp_fast.types import FloatArray, IntArray

if TYPE_CHECKING:
    from pixeldp_fast.smooth.judge import Terms

COMPETITORS = ("complement", "all")
MEAN_BOUNDS = {  # of softmax scores, and what they are called
    "hoeffding": "Hoeffding",
    "bernstein": "empirical Bernstein",
    "betting": "betting, the bets planned by the selection draws",
    "hoeffding+bernstein": "the better of Hoeffding and empirical Bernstein at half of it each",
}


def split_in_words(terms: Terms) -> str:
    """How alpha is spent on the bounds of one example."""
    if terms.stop == "decided":
        return "alpha on both ends of the anytime interval (Krichevsky-Trofimov)"
    if terms.competitor == "complement" and terms.mean_bound == "hoeffding+bernstein":
        how = (
            "alpha on p_lower (Clopper-Pearson)"
            if terms.scores == "argmax"
            else "alpha/2 on p_lower by Hoeffding, alpha/2 by empirical Bernstein"
        )
    else:
        name = "Clopper-Pearson" if terms.scores == "argmax" else MEAN_BOUNDS[terms.mean_bound]
        share = (
            "alpha on p_lower"
            if terms.competitor == "complement"
            else "alpha/2 on p_lower, alpha/2 shared by the other classes"
        )
        how = f"{share} ({name})"
    parts = [f"{level / terms.alpha:g} of it at {draws} draws" for draws, level in terms.looks]
    return how if len(parts) == 1 else f"{how}; {', '.join(parts)}"


def probabilities(
    terms: Terms, selection: Tally, estimation: Tally, chosen: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Bounds of the chosen class's probability (or mean score), and of its strongest competitor's.

    Parameters
    ----------
    selection : Tally
        Plans the bets of the betting bound; nothing of it enters otherwise.
    estimation : Tally
        Every example at one of the looks of the terms.
    chosen : int64 [B]

    Returns
    -------
    p_lower, p_upper : float64 [B]
        p_upper is at most 1 - p_lower (rounded up).

    Guarantee
        Per example, both hold with probability at least 1 - alpha, wherever the draws stopped.
    """
    levels = dict(terms.looks)
    alpha = np.array([levels[int(draws)] for draws in estimation.draws])
    everything = terms.competitor == "complement"
    top = alpha if everything else _apart(alpha, 2)
    rest = None if everything else _apart(alpha - top, terms.num_classes - 1)
    bounds = _of_votes if terms.scores == "argmax" else _of_scores
    p_lower, p_upper = bounds(terms, selection, estimation, chosen, top, rest)
    return p_lower, np.minimum(p_upper, np.clip(np.nextafter(1.0 - p_lower, 2.0), 0.0, 1.0))


def _apart(alpha: FloatArray, parts: int) -> FloatArray:
    """`bonferroni` of every level; there are as many as looks."""
    found, where = np.unique(alpha, return_inverse=True)
    return np.array([bonferroni(level, parts) for level in found])[where.ravel()]


def _of_votes(
    terms: Terms,
    selection: Tally,
    estimation: Tally,
    chosen: IntArray,
    top: FloatArray,
    rest: FloatArray | None,
) -> tuple[FloatArray, FloatArray]:
    del selection
    rows, draws = np.arange(len(chosen)), estimation.draws
    p_lower = clopper_pearson_lower(estimation.counts[rows, chosen], draws, top)
    if rest is None:
        return p_lower, np.ones(len(chosen))
    others = estimation.counts[:, :-1].copy()
    others[rows, chosen] = 0
    # At one level the bound grows with the count: the largest is that of the largest count.
    return p_lower, clopper_pearson_upper(others.max(axis=1), draws, rest)


def _of_scores(
    terms: Terms,
    selection: Tally,
    estimation: Tally,
    chosen: IntArray,
    top: FloatArray,
    rest: FloatArray | None,
) -> tuple[FloatArray, FloatArray]:
    rows = np.arange(len(chosen))
    lower = _LOWER[terms.mean_bound]
    total, square = _sums(estimation)
    guess = _planned_variance(selection)
    p_lower = _mean_bound(
        lower, total[rows, chosen], square[rows, chosen], terms.n, top, guess[rows, chosen]
    )
    if rest is None:
        return p_lower, np.ones(len(chosen))
    # One minus a score is a score: an upper bound is one minus the lower bound of that. Flooring
    # to the grid lowers a score by less than a step, which is added.
    size = terms.n * GRID
    missed = _mean_bound(
        lower,
        size - total,
        size * GRID - 2 * GRID * total + square,
        terms.n,
        np.broadcast_to(rest[:, None], total.shape),
        guess,
    )  # [B, K]
    upper = np.minimum(np.nextafter(np.nextafter(1 - missed, 2) + 1 / GRID, 2), 1.0)
    upper[rows, chosen] = 0.0
    return p_lower, upper.max(axis=1)


def _sums(tally: Tally) -> tuple[IntArray, IntArray]:
    """Sums and squares as Python integers: n times a square reaches 2^84."""
    if tally.sums is None or tally.squares is None:
        raise RecordError("The tally holds no softmax sums; it was made with scores='argmax'.")
    return tally.sums.astype(object), tally.squares.astype(object)


def _planned_variance(selection: Tally) -> FloatArray:
    """The selection draws' variance with one draw of variance 1/4 added, float64 [B, K]."""
    total, square = _sums(selection)
    n = int(selection.draws[0]) if len(selection) else 1
    spread = (n * square - total * total).astype(np.float64) / (n * float(GRID) ** 2)
    return np.asarray((spread + 0.25) / (n + 1))


def _mean_bound(
    lower: Callable[..., FloatArray],
    total: IntArray,
    square: IntArray,
    n: int,
    alpha: FloatArray,
    guess: FloatArray,
) -> FloatArray:
    """A lower bound of the mean of scores, from exact sums in steps of the grid."""
    mean = (total / (n * GRID)).astype(np.float64)
    if n < 2:
        return hoeffding_lower(mean, n, alpha)
    variance = ((n * square - total * total) / (n * (n - 1) * GRID * GRID)).astype(np.float64)
    return lower(mean, variance, n, alpha, guess)


def _hoeffding(
    mean: FloatArray, variance: FloatArray, n: int, alpha: FloatArray, guess: FloatArray
) -> FloatArray:
    del variance, guess
    return hoeffding_lower(mean, n, alpha)


def _bernstein(
    mean: FloatArray, variance: FloatArray, n: int, alpha: FloatArray, guess: FloatArray
) -> FloatArray:
    del guess
    return empirical_bernstein_lower(mean, variance, n, alpha)


def _betting(
    mean: FloatArray, variance: FloatArray, n: int, alpha: FloatArray, guess: FloatArray
) -> FloatArray:
    return betting_lower(mean, variance, n, alpha, guess=guess)


def _better_of_two(
    mean: FloatArray, variance: FloatArray, n: int, alpha: FloatArray, guess: FloatArray
) -> FloatArray:
    half = _apart(alpha.ravel(), 2).reshape(alpha.shape)
    return np.maximum(
        _hoeffding(mean, variance, n, half, guess), _bernstein(mean, variance, n, half, guess)
    )


_LOWER: dict[str, Callable[..., FloatArray]] = {
    "hoeffding": _hoeffding,
    "bernstein": _bernstein,
    "betting": _betting,
    "hoeffding+bernstein": _better_of_two,
}
