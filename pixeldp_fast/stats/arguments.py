"""What the statistics accept: levels, counts and numbers, refused before any work."""

from __future__ import annotations

import numpy as np

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.types import ArrayLike, FloatArray

LARGEST_N = 2**32  # what the counter of draws can address
SMALLEST_ALPHA = 1e-200  # below 1e-240 SciPy's incomplete beta function is at times wrong


def real(name: str, value: ArrayLike) -> FloatArray:
    """`value` as float64, without NaN."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument(f"`{name}` must be a number or numbers, got {value!r}.") from None
    if np.isnan(array).any():
        raise InvalidArgument(f"`{name}` must not be NaN; got {value!r}.")
    return array


def level(alpha: ArrayLike) -> FloatArray:
    """`alpha` as float64 in (0, 1)."""
    a = real("alpha", alpha)
    if not np.all((a >= SMALLEST_ALPHA) & (a < 1)):
        raise InvalidArgument(
            "`alpha`, the probability that the claim is false, must lie in (0, 1) "
            f"and not below {SMALLEST_ALPHA:g}; got {alpha!r}. Try 0.001."
        )
    return a


def count(name: str, value: ArrayLike, least: int = 0) -> FloatArray:
    """Whole numbers in [`least`, 2^32], as the float64 that holds them exactly."""
    c = real(name, value)
    if not np.all((c >= least) & (c <= LARGEST_N) & (c == np.floor(c))):
        raise InvalidArgument(
            f"`{name}` must hold whole numbers in [{least}, 2^32], got {value!r}."
        )
    return c


def hits(k: ArrayLike, n: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Hits `k` in [0, n] and draws `n` of at least 1, broadcast against each other."""
    hit, drawn = np.broadcast_arrays(count("k", k), count("n", n, 1))
    if not np.all(hit <= drawn):
        raise InvalidArgument(f"`k` must not exceed `n`; got k={k!r}, n={n!r}.")
    return hit, drawn
