"""Bounds for a whole distribution and for its quantiles, without any assumption about its form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pixeldp_fast import rounding
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import arguments
from pixeldp_fast.stats.binomial import clopper_pearson_lower, clopper_pearson_upper
from pixeldp_fast.types import ArrayLike, FloatArray, IntArray


def dkw_width(n: ArrayLike, alpha: ArrayLike) -> FloatArray:
    """Half-width of the band around an empirical distribution: sqrt(ln(2/alpha) / (2n)).

    Parameters
    ----------
    n : int [...]
        Draws, fixed in advance, at least 1.
    alpha : float [...]
        In (0, 1), for both sides of the band together. All broadcast.

    Returns
    -------
    width : float64 [...]

    Guarantee
        With probability at least 1 - alpha the empirical distribution function is nowhere farther
        than that from the true one: not above and not below. Rounded up.
    Source
        Dvoretzky, Kiefer and Wolfowitz, 1956; the constant by Massart, Annals of Probability 18,
        1990.
    """
    draws, level = arguments.count("n", n, 1), arguments.level(alpha)
    return rounding.up(np.sqrt((np.log(2) - np.log(level)) / (2 * draws)))


def lower_rank(n: int, p: ArrayLike, alpha: float) -> IntArray:
    """The largest j such that at most a share `p` of the distribution lies below the j-th of n.

    Parameters
    ----------
    n : int
        Draws, fixed in advance, at least 1.
    p : float [...]
        In [0, 1].
    alpha : float
        One-sided, in (0, 1).

    Returns
    -------
    rank : int64 [...]
        In [0, n], counted from the smallest draw, which is 1; 0: no draw will do.

    Guarantee
        P(A < X) <= p for the draw X of that rank, with probability at least 1 - alpha. The rank
        depends on n, p and alpha alone, so it is known before the draws.
    Source
        Binomial tails: the draws at or below the p-quantile are at least Binomial(n, p), and the
        claim is false only if they are fewer than the rank.
    """
    draws, share = _checked(n, p)

    # Clopper-Pearson's upper bound for k hits is the p at which at most k are as rare as alpha.
    def holds(rank: IntArray) -> npt.NDArray[np.bool_]:
        return clopper_pearson_upper(rank - 1, draws, alpha) <= share

    return _last_holding(holds, draws, share.shape)


def upper_rank(n: int, p: ArrayLike, alpha: float) -> IntArray:
    """The smallest k such that at least a share `p` of the distribution lies up to the k-th of n.

    Parameters are those of `lower_rank`.

    Returns
    -------
    rank : int64 [...]
        In [1, n + 1]; n + 1: no draw will do.

    Guarantee
        P(A <= X) >= p for the draw X of that rank, with probability at least 1 - alpha.
    Source
        As for `lower_rank`: the draws below the p-quantile are at most Binomial(n, p).
    """
    draws, share = _checked(n, p)

    def misses(rank: IntArray) -> npt.NDArray[np.bool_]:
        return clopper_pearson_lower(rank, draws, alpha) < share

    return _last_holding(misses, draws, share.shape) + 1


def _last_holding(
    holds: Callable[[IntArray], npt.NDArray[np.bool_]], draws: int, shape: tuple[int, ...]
) -> IntArray:
    """The last rank in [1, draws] at which `holds`, that once false stays false; else 0."""
    low, high = np.zeros(shape, dtype=np.int64), np.full(shape, draws + 1, dtype=np.int64)
    while np.any(high - low > 1):
        middle = np.clip((low + high) // 2, 1, draws)
        yes = holds(middle)
        wide = high - low > 1
        low, high = np.where(wide & yes, middle, low), np.where(wide & ~yes, middle, high)
    return low


def _checked(n: int, p: ArrayLike) -> tuple[int, FloatArray]:
    draws, share = int(arguments.count("n", n, 1)), arguments.real("p", p)
    if not np.all((share >= 0) & (share <= 1)):
        raise InvalidArgument(f"`p` must lie in [0, 1], got {p!r}.")
    return draws, share
