"""40 digits, and the normal law in them."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from statistics import NormalDist
from typing import Any

from pixeldp_fast.errors import MissingExtra

DIGITS = 40
# Of mpmath's numbers no types are known: they are `Any` throughout.
Real = Any

_LEAST_START = 1e-300  # below it the start of Newton's method is the asymptotic one


@cache
def mp() -> Any:
    """mpmath's numbers at 40 digits, apart from the precision that the program may have set.

    Raises
    ------
    MissingExtra
        Without mpmath.
    """
    try:
        import mpmath
    except ImportError as error:
        raise MissingExtra(
            "Verification computes with mpmath: pip install 'pixeldp_fast[verify]'."
        ) from error
    context = mpmath.mp.clone()
    context.dps = DIGITS
    return context


def exactly(value: float | Fraction) -> Real:
    """A float or fraction in 40 digits."""
    exact = Fraction(value)
    return mp().mpf(exact.numerator) / exact.denominator


def normal_cdf(x: Real) -> Real:
    """Phi(x), accurate in both tails."""
    m = mp()
    return m.erfc(-x / m.sqrt(2)) / 2


def normal_quantile(p: Real) -> Real:
    """Phi^-1(p) for 0 < p < 1, by Newton's method on the logarithm of the smaller tail."""
    m = mp()
    if p > 0.5:
        return -normal_quantile(1 - p)
    start = float(p)
    if start >= _LEAST_START:
        x = m.mpf(NormalDist().inv_cdf(start)) if start < 0.5 else m.mpf(0)
    else:
        x = -m.sqrt(-2 * m.log(p))
    for _ in range(60):
        tail = normal_cdf(x)
        step = tail * m.log(tail / p) * m.sqrt(2 * m.pi) * m.exp(x * x / 2)
        x -= step
        if abs(step) <= abs(x) * m.mpf(10) ** (5 - DIGITS) + m.mpf(10) ** (-2 * DIGITS):
            break
    return x
