"""Prediction from a tally: a class, or no answer where the draws do not decide."""

from __future__ import annotations

import numpy as np

from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.errors import RecordError
from pixeldp_fast.stats.binomial import binomial_test_rejects
from pixeldp_fast.stats.mean import hoeffding_lower, hoeffding_upper
from pixeldp_fast.types import ABSTAIN, IntArray


def predicted_classes(tally: Tally, scores: str, alpha: float) -> IntArray:
    """The most likely class of every example, or ABSTAIN, int64 [B].

    Guarantee
        Per example, a class other than the smoothed classifier's is returned with probability at
        most alpha.
    Source
        Votes: Cohen et al., ICML 2019, Proposition 2, with Hung and Fithian, 2019. Softmax: K
        one-sided Hoeffding bounds at alpha/K, one for the true class and one for each other.
    """
    return _by_votes(tally, alpha) if scores == "argmax" else _by_scores(tally, alpha)


def _by_votes(tally: Tally, alpha: float) -> IntArray:
    """Two-sided test of the two most frequent outcomes; non-finite outputs are an outcome."""
    order = np.argsort(-tally.counts, axis=1, kind="stable")
    rows = np.arange(len(tally))
    first, second = order[:, 0], order[:, 1]
    decided = binomial_test_rejects(tally.counts[rows, first], tally.counts[rows, second], alpha)
    non_finite = tally.counts.shape[1] - 1
    blocked = (first == non_finite) | ((second == non_finite) & (tally.counts[rows, second] > 0))
    return np.where(decided & ~blocked, first, ABSTAIN).astype(np.int64)


def _by_scores(tally: Tally, alpha: float) -> IntArray:
    if tally.sums is None:
        raise RecordError("The tally holds no softmax sums.")
    classes = tally.sums.shape[1]
    mean = tally.sums / (tally.draws[:, None] * float(GRID))
    n, share = int(tally.draws[0]) if len(tally) else 1, alpha / classes
    first = mean.argmax(axis=1)
    rows = np.arange(len(mean))
    others = mean.copy()
    others[rows, first] = 0.0
    # Flooring to the grid lowers a score by less than a step, so an upper bound adds one.
    runner_up = hoeffding_upper(np.minimum(others.max(axis=1) + 1 / GRID, 1.0), n, share)
    decided = hoeffding_lower(mean[rows, first], n, share) > runner_up
    return np.where(decided, first, ABSTAIN).astype(np.int64)
