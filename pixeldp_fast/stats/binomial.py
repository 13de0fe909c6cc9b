"""Confidence bounds for a probability from votes, and the test behind `predict`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from pixeldp_fast import rounding
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import arguments
from pixeldp_fast.stats.beta import beta_quantile, margin, outward
from pixeldp_fast.types import ArrayLike, FloatArray


def clopper_pearson_lower(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> FloatArray:
    """Lower confidence bound for the probability behind `k` hits in `n` draws.

    Parameters
    ----------
    k : int [...]
        Hits, 0 <= k <= n.
    n : int [...]
        Draws, fixed in advance, at least 1; broadcast.
    alpha : float [...]
        Probability that the claim is false, one-sided, in (0, 1); broadcast.

    Returns
    -------
    p_lower : float64 [...]
        The alpha quantile of Beta(k, n - k + 1); 0 where k = 0.

    Guarantee
        With probability at least 1 - alpha over the draws the true probability is not below it.
        Rounded down: below the exact bound and within 1e-9 of it, for n up to 10^7. Not valid for
        counts that a stopping rule produced.
    Source
        Clopper and Pearson, Biometrika 26, 1934.
    Cost
        About 1 microsecond a value where hits and misses are many, about 8 where either are few.
    """
    hit, drawn = arguments.hits(k, n)
    return _one_minus_upper(hit, drawn, arguments.level(alpha))[0]


def clopper_pearson_upper(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> FloatArray:
    """Upper confidence bound for the probability behind `k` hits in `n` draws.

    Parameters
    ----------
    k, n, alpha
        As for `clopper_pearson_lower`.

    Returns
    -------
    p_upper : float64 [...]
        The 1 - alpha quantile of Beta(k + 1, n - k); 1 where k = n.

    Guarantee
        As for `clopper_pearson_lower`, the other way: rounded up.
    Source
        Clopper and Pearson, Biometrika 26, 1934.
    """
    hit, drawn = arguments.hits(k, n)
    return _one_minus_upper(drawn - hit, drawn, arguments.level(alpha))[1]


def _one_minus_upper(
    k: FloatArray, n: FloatArray, alpha: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The lower bound for k, and one minus it: the upper bound for n - k; each rounded outward."""
    k, n, alpha = np.broadcast_arrays(k, n, alpha)
    some = k > 0
    lower, upper = np.zeros(k.shape), np.ones(k.shape)
    x, complement = beta_quantile(k[some], n[some], alpha[some])
    lower[some], upper[some] = outward(x, complement, margin(n[some]))
    return lower, upper


def largest_lower(n: ArrayLike, alpha: ArrayLike) -> FloatArray:
    """The lower bound when all of `n` draws are hits: alpha^(1/n), the best that n draws can give.

    Parameters
    ----------
    n : int [...]
    alpha : float [...]

    Returns
    -------
    p_lower : float64 [...]
        Rounded down.
    """
    return clopper_pearson_lower(n, n, alpha)


def smallest_n(alpha: float, target: float = 0.5) -> int:
    """The fewest draws with which the lower bound can exceed `target` at all.

    Parameters
    ----------
    alpha : float
        In (0, 1).
    target : float
        In (0, 1); 0.5 is what a certificate against the complement needs.

    Returns
    -------
    n : int
        The least n with `largest_lower(n, alpha)` > target.

    Raises
    ------
    InvalidArgument
        Also where more than 2^32 draws would be needed.
    """
    level = float(arguments.level(alpha))
    if not 0 < target < 1:
        raise InvalidArgument(f"`target` must lie in (0, 1), got {target!r}.")
    n = max(1, math.floor(math.log(level) / math.log(target)) - 1)
    while n < arguments.LARGEST_N and not largest_lower(n, level) > target:
        n += 1
    if n >= arguments.LARGEST_N:
        raise InvalidArgument(f"`target` {target!r} needs more than 2^32 draws at alpha {alpha!r}.")
    return n


def binomial_test_rejects(k1: ArrayLike, k2: ArrayLike, alpha: ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether the two most frequent outcomes differ: the two-sided binomial test at one half.

    Parameters
    ----------
    k1, k2 : int [...]
        Counts of the two outcomes, in either order, at least 0; broadcast.
    alpha : float [...]
        In (0, 1); broadcast.

    Returns
    -------
    rejects : bool [...]
        True where the p-value is at most alpha; never where k1 = k2.

    Guarantee
        When the outcome with fewer votes is in truth the more probable one, or both are equally
        probable, it rejects with probability at most alpha. The p-value is rounded up.
    Source
        Hung and Fithian, Annals of Statistics 47, 2019, as used by Cohen et al., ICML 2019.
    """
    first, second = np.broadcast_arrays(arguments.count("k1", k1), arguments.count("k2", k2))
    level = arguments.level(alpha)
    more, fewer = np.maximum(first, second), np.minimum(first, second)
    tail = special.betainc(np.maximum(more, 1), fewer + 1, 0.5)  # P(X >= more), more >= 1
    # At a million draws the incomplete beta function is good to 1e-10; the p-value needs no more.
    return np.asarray((more > fewer) & (rounding.up(2 * tail, 1e-9) <= level))
