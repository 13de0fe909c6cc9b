"""Directed rounding: the last step of every number that enters a certificate.

The special functions used here (SciPy's betaincinv, ndtri, log_ndtr and the C library's
elementary functions) are accurate to a few units in the last place, far better than the margins
below, but not correctly rounded. Moving the result by the margin, away from the claim, puts it on
the safe side of the exact value while staying within 1e-9 of it.
"""

from __future__ import annotations

import numpy as np

from pixeldp_fast.types import ArrayLike, FloatArray

MARGIN = 1e-11  # relative; covers an error of 45 000 units in the last place


def down(value: ArrayLike, margin: ArrayLike = MARGIN) -> FloatArray:
    """`value` lowered by `margin` relative, and by at least one step; 0 and infinities stay."""
    v = np.asarray(value, dtype=np.float64)
    lowered = np.nextafter(v * (1 - np.copysign(margin, v)), -np.inf)
    return np.where((v == 0) | np.isinf(v), v, lowered)


def up(value: ArrayLike, margin: ArrayLike = MARGIN) -> FloatArray:
    """`value` raised by `margin` relative, and by at least one step; 0 and infinities stay."""
    return -down(-np.asarray(value, dtype=np.float64), margin)
