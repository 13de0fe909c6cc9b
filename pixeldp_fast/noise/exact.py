"""Fifty correct digits: what the tables of lattice noise are made from."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

# `decimal` rounds every operation, `exp` included, correctly to this many digits.
DIGITS = Context(prec=70, rounding=ROUND_HALF_EVEN, Emin=-999999, Emax=999999)
ERROR = Decimal("1e-50")  # what a tail may be off by; proved with nine digits to spare
NEGLIGIBLE = 1e-65
ROOT_TWO_PI = Decimal("2.506628274631000502415765284811045253006986740609938316629923576342293655")
INVERSES = (Decimal(0), *(DIGITS.divide(Decimal(1), Decimal(n)) for n in range(1, 100)))
