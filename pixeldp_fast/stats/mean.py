"""Confidence bounds for the mean of scores in a known range, at a fixed number of draws.

`mean` and `variance` are taken as exact: whoever sums the scores sums them on an integer grid, or
in float64 with the ends moved outward.
"""

from __future__ import annotations

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import arguments
from pixeldp_fast.types import ArrayLike, FloatArray


def hoeffding_lower(
    mean: ArrayLike, n: ArrayLike, alpha: ArrayLike, low: ArrayLike = 0, high: ArrayLike = 1
) -> FloatArray:
    """Lower confidence bound: mean - (high - low) sqrt(ln(1/alpha) / (2n)), not below `low`.

    Parameters
    ----------
    mean : float [...]
        Average of the scores, in [low, high].
    n : int [...]
        Draws, at least 1.
    alpha : float [...]
        One-sided, in (0, 1).
    low, high : float [...]
        Range of every score, low < high. All broadcast.

    Returns
    -------
    lower : float64 [...]

    Guarantee
        With probability at least 1 - alpha the expectation is not below it. Rounded down.
    Source
        Hoeffding, JASA 58, 1963, Theorem 2.
    """
    m, a, b = checked_mean(mean, low, high)
    return _below(m, _hoeffding_width(n, alpha, a, b), a)


def hoeffding_upper(
    mean: ArrayLike, n: ArrayLike, alpha: ArrayLike, low: ArrayLike = 0, high: ArrayLike = 1
) -> FloatArray:
    """Upper confidence bound: mean + (high - low) sqrt(ln(1/alpha) / (2n)), not above `high`.

    Parameters, guarantee and source are those of `hoeffding_lower`; rounded up.
    """
    m, a, b = checked_mean(mean, low, high)
    return -_below(-m, _hoeffding_width(n, alpha, a, b), -b)


def empirical_bernstein_lower(
    mean: ArrayLike,
    variance: ArrayLike,
    n: ArrayLike,
    alpha: ArrayLike,
    low: ArrayLike = 0,
    high: ArrayLike = 1,
) -> FloatArray:
    """Lower confidence bound from the sample variance, not below `low`.

    mean - [ sqrt(2 V ln(2/alpha) / n) + 7 (high - low) ln(2/alpha) / (3 (n - 1)) ]

    Parameters
    ----------
    mean : float [...]
        Average of the scores, in [low, high].
    variance : float [...]
        Unbiased sample variance V (divided by n - 1), at least 0.
    n : int [...]
        Draws, at least 2.
    alpha : float [...]
        One-sided, in (0, 1).
    low, high : float [...]
        Range of every score, low < high. All broadcast.

    Returns
    -------
    lower : float64 [...]

    Guarantee
        With probability at least 1 - alpha the expectation is not below it. Rounded down.
    Source
        Maurer and Pontil, COLT 2009, Theorem 4.
    """
    m, a, b = checked_mean(mean, low, high)
    return _below(m, _bernstein_width(variance, n, alpha, a, b), a)


def empirical_bernstein_upper(
    mean: ArrayLike,
    variance: ArrayLike,
    n: ArrayLike,
    alpha: ArrayLike,
    low: ArrayLike = 0,
    high: ArrayLike = 1,
) -> FloatArray:
    """Upper confidence bound from the sample variance, not above `high`.

    Parameters, guarantee and source are those of `empirical_bernstein_lower`; rounded up.
    """
    m, a, b = checked_mean(mean, low, high)
    return -_below(-m, _bernstein_width(variance, n, alpha, a, b), -b)


def _hoeffding_width(
    n: ArrayLike, alpha: ArrayLike, low: FloatArray, high: FloatArray
) -> FloatArray:
    draws, level = arguments.count("n", n, 1), arguments.level(alpha)
    return rounding.up((high - low) * np.sqrt(-np.log(level) / (2 * draws)))


def _bernstein_width(
    variance: ArrayLike, n: ArrayLike, alpha: ArrayLike, low: FloatArray, high: FloatArray
) -> FloatArray:
    v = checked_variance(variance)
    draws, level = arguments.count("n", n, 2), arguments.level(alpha)
    log = np.log(2) - np.log(level)
    return rounding.up(np.sqrt(2 * v * log / draws) + 7 * (high - low) * log / (3 * (draws - 1)))


def _below(mean: FloatArray, width: FloatArray, low: FloatArray) -> FloatArray:
    return np.maximum(np.nextafter(mean - width, -np.inf), low)


def checked_variance(variance: ArrayLike) -> FloatArray:
    """`variance` as float64, finite and at least 0."""
    v = arguments.real("variance", variance)
    if not np.all((v >= 0) & np.isfinite(v)):
        raise InvalidArgument(f"`variance` must be finite and at least 0, got {variance!r}.")
    return v


def checked_mean(
    mean: ArrayLike, low: ArrayLike, high: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`mean`, `low` and `high` as float64, low < high and the mean between them."""
    m, a, b = (arguments.real(*item) for item in (("mean", mean), ("low", low), ("high", high)))
    if not np.all((a < b) & np.isfinite(b - a)):
        raise InvalidArgument(
            f"`low` must be below `high`, both finite; got {low!r} and {high!r}. Without a range "
            "there is no interval: clip the output, and certify the clipped model."
        )
    if not np.all((m >= a) & (m <= b)):
        raise InvalidArgument(f"`mean` must lie in [{low!r}, {high!r}], the range, got {mean!r}.")
    return m, a, b
