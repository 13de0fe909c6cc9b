"""The binomial likelihood and the quantiles of the beta law, accurate in both tails at any n."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from pixeldp_fast import rounding
from pixeldp_fast.types import FloatArray

# From here on one step from the saddlepoint start is enough; below, SciPy's inverse is as fast.
_SADDLEPOINT_FROM = 400
# Newton's remainder is about step^2 / (a b / (a + b)) in the logit: below 3e-12 at this step.
_LARGEST_STEP = 2e-5
# Beyond so many draws SciPy's functions were seen to be off by up to 3.3e-10, 8e-10 at 10^9.
_PRECISE_UP_TO, _LARGE_MARGIN, _PER_DRAW = 1e5, 5e-10, 1e-18
_LEAST_LOG, _HALVINGS = -708.0, 64  # down to the least normal float64

Mask = npt.NDArray[np.bool_]


def divergence(h: FloatArray, t: FloatArray, logit: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How unlikely h of t is at p against its own maximum, and the derivative in the logit of p.

    Parameters
    ----------
    h, t : float64 [...]
        0 <= h <= t, t > 0; not necessarily whole.
    logit : float64 [...]
        ln(p / (1 - p)), finite.

    Returns
    -------
    divergence : float64 [...]
        h ln(h / (t p)) + (t - h) ln((t - h) / (t (1 - p))), at least 0 but for rounding.
    excess : float64 [...]
        t p - h, its derivative.
    """
    expected, expected_rest = t * special.expit(logit), t * special.expit(-logit)
    rest = t - h
    excess = np.where(logit < 0, expected - h, rest - expected_rest)
    return _term(h, expected, excess) + _term(rest, expected_rest, -excess), excess


def _term(count: FloatArray, expected: FloatArray, excess: FloatArray) -> FloatArray:
    safe = np.where(count > 0, count, 1.0)
    ratio = excess / safe
    far = expected / safe
    near = np.log1p(np.maximum(ratio, -0.5))
    return -count * np.where(ratio > -0.5, near, np.log(np.where(ratio > -0.5, 1.0, far)))


def beta_quantile(k: FloatArray, n: FloatArray, alpha: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The alpha quantile x of Beta(k, n - k + 1), 1 <= k <= n, and 1 - x, each to full precision.

    Parameters
    ----------
    k, n, alpha : float64 [N]

    Returns
    -------
    x, complement : float64 [N]
        Nearest, not yet rounded outward; relative error below 5e-12 up to 10^5 draws, beyond
        them below `margin`.

    Cost
        One evaluation of the incomplete beta function for large counts, about ten for small ones.
    """
    log_all = np.log(alpha) / n
    x, complement = np.exp(log_all), -np.expm1(log_all)  # k = n: x^n = alpha
    z = special.ndtri(alpha)
    large = (np.minimum(k, n - k) >= _SADDLEPOINT_FROM) & (z < -0.05)
    if large.any():
        logit, good = _large_count_logit(k[large], n[large], z[large])
        x[large], complement[large] = special.expit(logit), special.expit(-logit)
        large[large] = good
    left = (k < n) & ~large
    x[left], complement[left] = _inverted(k[left], (n - k + 1)[left], alpha[left])
    return x, complement


def _inverted(k: FloatArray, b: FloatArray, alpha: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The quantile of Beta(k, b) and its complement, by SciPy's inverse where it is confirmed.

    Each side is solved for where it is the smaller one: the larger is its difference from 1.
    SciPy's inverse is at times off by a multiple (alpha below 1e-90; above 0.48 with k = 1000; a
    few others), so that the function itself must confirm it, or else is inverted by halving.
    """
    x = special.betaincinv(k, b, alpha)
    high = x > 0.5
    size = np.where(high, 0.0, x)
    size[high] = special.betainccinv(b[high], k[high], alpha[high])
    excess, slope = _excess(size, high, k, b, alpha), _slope(size, high, k, b)
    wrong = ~(np.abs(excess) <= slope * margin(k + b - 1) / 2)  # also where it is NaN
    if wrong.any():
        size[wrong], high[wrong] = _halved(k[wrong], b[wrong], alpha[wrong])
    return np.where(high, 1 - size, size), np.where(high, size, 1 - size)


def _excess(
    size: FloatArray, high: Mask, k: FloatArray, b: FloatArray, alpha: FloatArray
) -> FloatArray:
    """P(Beta(k, b) <= x) - alpha, from the smaller tail; `size` is 1 - x where `high`, else x."""
    first, second = np.where(high, b, k), np.where(high, k, b)
    small = alpha <= 0.5
    at_most = high != small
    tail = np.empty(k.shape)
    for function, of in ((special.betainc, at_most), (special.betaincc, ~at_most)):
        tail[of] = function(first[of], second[of], size[of])
    return np.where(small, tail - alpha, (1 - alpha) - tail)


def _slope(size: FloatArray, high: Mask, k: FloatArray, b: FloatArray) -> FloatArray:
    """By how much the excess grows with the logarithm of `size`, without the sign."""
    first, second = np.where(high, b, k), np.where(high, k, b)
    inside = np.clip(size, 1e-307, 1 - 2.0**-53)
    log_slope = first * np.log(inside) + (second - 1) * np.log1p(-inside)
    return np.asarray(np.exp(log_slope - special.betaln(k, b)))


def _halved(k: FloatArray, b: FloatArray, alpha: FloatArray) -> tuple[FloatArray, Mask]:
    """The smaller side of the quantile, by halving its logarithm, and whether that is 1 - x."""
    half = np.full(k.shape, 0.5)
    high = _excess(half, np.zeros(k.shape, dtype=bool), k, b, alpha) < 0
    low, top = np.full(k.shape, _LEAST_LOG), np.log(half)
    for _ in range(_HALVINGS):
        middle = (low + top) / 2
        beyond = _excess(np.exp(middle), high, k, b, alpha) > 0
        up = beyond == high
        low, top = np.where(up, middle, low), np.where(up, top, middle)
    return np.exp((low + top) / 2), high


def _large_count_logit(k: FloatArray, n: FloatArray, z: FloatArray) -> tuple[FloatArray, Mask]:
    """The quantile's logit, and where the last step was small enough to trust.

    In the logit the density is sqrt(J) phi(r) c, with r the signed root of the divergence, so its
    normal score is r + ln(s / (sqrt(J) r)) / r up to O(n^-3/2); one Newton step on the exact score
    removes what is left.

    Source
        Barndorff-Nielsen, Biometrika 73, 1986 (r*); Lugannani and Rice, 1980.
    """
    b, total = n - k + 1, n + 1
    root_j = np.sqrt(k * b / total)
    logit = np.log(k / b) + z / root_j
    for _ in range(3):
        size, excess = divergence(k, total, logit)
        r = -np.sqrt(2 * size)
        score = r + np.log(excess / (root_j * r)) / r
        logit -= (score - z) * r / excess
    size, _ = divergence(k, total, logit)
    score = special.ndtri(special.betainc(k, b, special.expit(logit)))
    stirling = (1 / total - 1 / k - 1 / b) / 12
    slope = root_j * np.exp(score**2 / 2 - size + stirling)
    step = score - z
    return logit - step / slope, np.abs(step) < _LARGEST_STEP


def margin(n: FloatArray) -> FloatArray:
    """How far a quantile of n draws is moved outward, relative."""
    return np.where(n > _PRECISE_UP_TO, _LARGE_MARGIN + _PER_DRAW * n, rounding.MARGIN)


def outward(
    x: FloatArray, complement: FloatArray, margin: float | FloatArray = rounding.MARGIN
) -> tuple[FloatArray, FloatArray]:
    """x rounded down and 1 - x rounded up, each from the smaller one, which has more digits."""
    near_zero = x <= 0.5
    x_down, complement_up = rounding.down(x, margin), rounding.up(complement, margin)
    lower = np.where(near_zero, x_down, np.nextafter(1 - complement_up, 0))
    upper = np.where(near_zero, np.nextafter(1 - x_down, 2), complement_up)
    return np.maximum(lower, 0.0), np.minimum(upper, 1.0)
