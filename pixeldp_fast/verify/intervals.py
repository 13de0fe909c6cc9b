"""Confidence bounds by their definitions: what a stored bound must satisfy to be one.

Probabilities and levels are exact: floats are taken as the numbers that they are.
"""

from __future__ import annotations

from fractions import Fraction

from pixeldp_fast.verify.arithmetic import Real, exactly, mp

Exact = float | Fraction

_BITS = 192  # of the sum's fixed-point numbers
_NEGLIGIBLE = 112  # bits below the sum at which its terms are left out


def is_lower_bound(p: Exact, k: int, n: int, alpha: Exact) -> bool:
    """Whether `p` is at most the lower bound of a probability that gave `k` hits in `n` draws.

    Source
        Clopper and Pearson, Biometrika 26, 1934: the bound is the largest p at which at least k
        hits have a probability of at most alpha, and 0 for no hits.
    """
    return p <= 0 or bool(binomial_tail(k, n, p) <= exactly(alpha))


def is_upper_bound(p: Exact, k: int, n: int, alpha: Exact) -> bool:
    """Whether `p` is at least the upper bound: so many misses are unlikely at 1 - p."""
    return is_lower_bound(1 - Fraction(p), n - k, n, alpha)


def binomial_tail(k: int, n: int, p: Exact) -> Real:
    """P(at least `k` hits in `n` draws) at probability `p`, by the binomial sum.

    Fidelity
        The terms of the sum over its first one are fixed-point integers; what is cut off and left
        out is below 1e-30 of the sum.
    """
    if k == 0 or p >= 1:
        return mp().mpf(1)
    if p <= 0:
        return mp().mpf(0)
    if p * n >= k:  # the other side's terms fall from the first one on
        return 1 - _falling_sum(n - k + 1, n, 1 - Fraction(p))
    return _falling_sum(k, n, Fraction(p))


def _falling_sum(k: int, n: int, p: Fraction) -> Real:
    """The sum from `k` on, where p < k / n, so that every term is less than the one before."""
    m = mp()
    odds = (p.numerator << _BITS) // (p.denominator - p.numerator)
    term = total = 1 << _BITS
    for i in range(k, n):
        term = (term * (n - i) * odds // (i + 1)) >> _BITS
        if term < total >> _NEGLIGIBLE:
            break
        total += term
    exact = exactly(p)
    log_choose = m.loggamma(n + 1) - m.loggamma(k + 1) - m.loggamma(n - k + 1)
    log_first = log_choose + k * m.log(exact) + (n - k) * m.log1p(-exact)
    return m.exp(log_first) * m.ldexp(m.mpf(total), -_BITS)


def is_anytime_lower_bound(p: Exact, h: int, t: int, alpha: Exact) -> bool:
    """Whether `p` lies at or below the anytime interval of `h` hits in `t` draws.

    Source
        Krichevsky and Trofimov, 1981; Ville, 1939: {p : ln W(p) < ln(1/alpha)}.
    """
    return p <= 0 or (p * t < h and bool(_log_mixture(h, t, p) >= -mp().log(exactly(alpha))))


def is_anytime_upper_bound(p: Exact, h: int, t: int, alpha: Exact) -> bool:
    """Whether `p` lies at or above that interval."""
    return is_anytime_lower_bound(1 - Fraction(p), t - h, t, alpha)


def _log_mixture(h: int, t: int, p: Exact) -> Real:
    """ln of the Krichevsky-Trofimov mixture over the likelihood at `p`, for 0 < p < 1."""
    m = mp()
    at, half = exactly(p), m.mpf(1) / 2
    log_beta = m.loggamma(h + half) + m.loggamma(t - h + half) - m.loggamma(t + 1)
    return log_beta - m.log(m.pi) - h * m.log(at) - (t - h) * m.log1p(-at)
