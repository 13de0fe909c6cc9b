"""Fifty correct digits: what the tables of lattice noise are made from."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

# `decimal` rounds every operation, `exp` included, correctly to this many digits.
DIGITS = Context(prec=70, rounding=ROUND_HALF_EVEN, Emin=-999999, Emax=999999)
ERROR = Decimal("1e-50")  # what a tail may be off by; proved with ten digits to spare
NEGLIGIBLE = Decimal("1e-65")
HALF = Decimal("0.5")
ROOT_TWO_PI = Decimal("2.506628274631000502415765284811045253006986740609938316629923576342293655")


def tails(
    upper_tail: Callable[[Decimal], Decimal], scale: float, levels: int, least: Decimal
) -> list[Decimal]:
    """upper_tail((k - 1/2)/(scale levels)) for k = 1, 2, ... to the first one below `least`.

    The noise, rounded to whole steps of 1/levels, is at least k where it was above k - 1/2 before.
    """
    found: list[Decimal] = []
    with localcontext(DIGITS):
        width, k = 2 * Decimal(scale) * levels, 1
        while not found or found[-1] >= least:
            found.append(upper_tail(Decimal(2 * k - 1) / width))
            k += 1
    return found
