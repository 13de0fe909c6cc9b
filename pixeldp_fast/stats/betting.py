"""Bounds for a mean by betting against every value that it might have, from two moments alone."""

from __future__ import annotations

import numpy as np

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import arguments
from pixeldp_fast.stats.mean import checked_mean, checked_variance
from pixeldp_fast.types import ArrayLike, FloatArray

# The bets are planned for this much log capital, ln 1000, whatever alpha is: bounds at two levels
# then come from the same bets and are nested, which Holm's rule needs.
_PLANNED = 6.907755278982137
_OCTAVES = np.arange(-3, 4)
# Most of the stake is on the planned bet, for which it costs ln(1/0.6) of capital, and a quarter of
# the stake of its neighbour on each further octave: they serve where the guess was poor.
_STAKES = 0.6 * 0.25 ** np.abs(_OCTAVES)
_ROUNDING = 1e-12  # relative, of the terms of the log capital; each is good to 1e-14
_HALVINGS = 60


def betting_lower(
    mean: ArrayLike,
    variance: ArrayLike,
    n: ArrayLike,
    alpha: ArrayLike,
    low: ArrayLike = 0,
    high: ArrayLike = 1,
    *,
    guess: ArrayLike = 0.25,
) -> FloatArray:
    """Lower confidence bound by a mixture of bets, not below `low`.

    Scores x in [0, 1] of mean m let a bettor's capital grow by 1 + lambda (x - m) per draw, on
    average by nothing. Capital 1/alpha refutes m. The logarithm of the factor is at least
    lambda (x - m) - psi(lambda m) ((x - m)/m)^2, psi(c) = -ln(1 - c) - c, so that the capital is
    bounded from below by the sums of the scores and of their squares, in any order of the draws.

    Parameters
    ----------
    mean : float [...]
        Average of the scores, in [low, high].
    variance : float [...]
        Unbiased sample variance (divided by n - 1), at least 0.
    n : int [...]
        Draws, fixed in advance, at least 2.
    alpha : float [...]
        One-sided, in (0, 1).
    low, high : float [...]
        Range of every score, low < high. All broadcast.
    guess : float [...]
        What the variance is thought to be, from anything but these draws: it sets the bets.

    Returns
    -------
    lower : float64 [...]

    Guarantee
        With probability at least 1 - alpha the expectation is not below it, whatever the guess.
        Rounded down: at the bound the capital, less its rounding error, is at least 1/alpha.
    Source
        Waudby-Smith and Ramdas, JRSS B 86, 2024 (capital and bets); Fan, Grama and Liu, Electronic
        Journal of Probability 20, 2015, Lemma 4.1 (the two moments).
    Cost
        60 halvings of an interval on elementary functions: about 150 microseconds a bound.
    """
    m, v, draws, level, a, b = _checked(mean, variance, n, alpha, low, high)
    width = b - a
    planned = _planned_bet(arguments.real("guess", guess) / width**2, draws)
    share = np.minimum(np.nextafter((m - a) / width, -1), 1)
    spread = v / width**2 * (draws - 1) / draws
    bound = _largest_refuted(np.maximum(share, 0.0), spread, draws, -np.log(level), planned)
    return np.clip(np.nextafter(a + np.nextafter(width * bound, -1), -np.inf), a, b)


def betting_upper(
    mean: ArrayLike,
    variance: ArrayLike,
    n: ArrayLike,
    alpha: ArrayLike,
    low: ArrayLike = 0,
    high: ArrayLike = 1,
    *,
    guess: ArrayLike = 0.25,
) -> FloatArray:
    """Upper confidence bound by a mixture of bets, not above `high`.

    Parameters, guarantee and source are those of `betting_lower`; rounded up.
    """
    m, a, b = (-arguments.real(*item) for item in (("mean", mean), ("low", low), ("high", high)))
    return -betting_lower(m, variance, n, alpha, b, a, guess=guess)


def _planned_bet(guess: FloatArray, draws: FloatArray) -> FloatArray:
    """The bet that reaches the planned capital soonest at this variance, at most 1."""
    if not np.all(np.isfinite(guess) & (guess >= 0)):
        raise InvalidArgument(f"`guess`, a variance, must be finite and at least 0; got {guess!r}.")
    return np.sqrt(2 * _PLANNED / np.maximum(draws * guess, 2 * _PLANNED))


def _largest_refuted(
    mean: FloatArray, spread: FloatArray, draws: FloatArray, needed: FloatArray, planned: FloatArray
) -> FloatArray:
    """The largest m in [0, mean] that the capital refutes, from below; 0 where it refutes none.

    The capital falls as m grows: the derivative of its logarithm is at most
    lambda n (2 psi(c)/c^2 (1 - c) - 1) with c = lambda m, and 2 psi(c)/c^2 (1 - c) <= 1.
    """
    low, high = np.zeros(mean.shape), mean
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        refuted = _log_capital(middle, mean, spread, draws, planned) >= needed
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low


def _log_capital(
    m: FloatArray, mean: FloatArray, spread: FloatArray, draws: FloatArray, planned: FloatArray
) -> FloatArray:
    """ln of the mixture's capital against the mean m, less the rounding error of its terms."""
    bet = np.minimum(planned[..., None] * 2.0**_OCTAVES, 1.0)  # [..., bets]
    away = (mean - m)[..., None]
    gain = bet * away
    price = bet**2 * _curvature(bet * m[..., None]) * (spread[..., None] + away**2)
    terms = draws[..., None] * (gain - price - _ROUNDING * (gain + price)) + np.log(_STAKES)
    top = terms.max(axis=-1)
    return np.asarray(top + np.log(np.exp(terms - top[..., None]).sum(axis=-1)) - _ROUNDING)


def _curvature(c: FloatArray) -> FloatArray:
    """psi(c)/c^2 = 1/2 + c/3 + c^2/4 + ... for c in [0, 1); as good as infinite at 1."""
    small = c < 0.01
    x = np.where(small, 0.5, np.minimum(c, 1 - 2.0**-53))
    direct = (-np.log1p(-x) - x) / x**2
    series = sum((c**k / (k + 2) for k in range(9)), start=np.zeros_like(c))
    return np.where(c >= 1, 1e300, np.where(small, series, direct))


def _checked(
    mean: ArrayLike,
    variance: ArrayLike,
    n: ArrayLike,
    alpha: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
) -> tuple[FloatArray, ...]:
    m, a, b = checked_mean(mean, low, high)
    v = checked_variance(variance)
    draws, level = arguments.count("n", n, 2), arguments.level(alpha)
    return tuple(np.broadcast_arrays(m, v, draws, level, a, b))
