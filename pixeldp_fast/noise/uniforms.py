"""From 32-bit words to the numbers the laws need, with u = (w + 1/2) 2^-bits.

Written once for NumPy (float64: the definition) and torch (float32). In float32 a word above 2^24
is rounded when it is converted; working from the nearer end of the interval keeps the relative
precision of small u and of small 1 - u alike.
"""

from __future__ import annotations

import math
from typing import Any


def _as_float(words: Any, xp: Any) -> Any:
    if xp.__name__ == "numpy":
        return words.astype(xp.float64)
    return words.to(xp.float32)


def minus_log(words: Any, bits: int, xp: Any) -> Any:
    """-ln u; the largest value is (bits + 1) ln 2."""
    near_one = words >= 2 ** (bits - 1)
    from_end = (_as_float(xp.where(near_one, (2**bits - 1) - words, words), xp) + 0.5) * 2.0**-bits
    return xp.where(near_one, -xp.log1p(-from_end), -xp.log(from_end))


def angle(words: Any, xp: Any) -> Any:
    """2 pi u, taken in [-pi, pi) so that the conversion loses as little as possible."""
    return signed_unit(words ^ 0x80000000, xp) * math.pi


def signed_unit(words: Any, xp: Any) -> Any:
    """2 u - 1 = (w - 2^31 + 1/2) 2^-31, in [-1, 1]."""
    signed = words.astype(xp.int64) - 2**31 if xp.__name__ == "numpy" else words - 2**31
    return (_as_float(signed, xp) + 0.5) * 2.0**-31
