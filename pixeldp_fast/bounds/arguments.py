"""What the bounds accept, refused before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.types import ArrayLike, FloatArray


def checked_mechanism(mechanism: Any) -> AbstractMechanism:
    """`mechanism`, if it is one."""
    if not isinstance(mechanism, AbstractMechanism):
        raise InvalidArgument(
            f"`mechanism` must be a noise mechanism such as Gaussian(0.5), got {mechanism!r}."
        )
    return mechanism


def real(
    name: str, value: ArrayLike, low: float | FloatArray, high: float | FloatArray
) -> FloatArray:
    """`value` as float64 in [low, high], without NaN."""
    try:
        v = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument(f"`{name}` must be a number or numbers, got {value!r}.") from None
    if not np.all((v >= low) & (v <= high)):
        raise InvalidArgument(f"`{name}` must lie in [{low}, {high}] everywhere; got {value!r}.")
    return v


def positive(name: str, value: ArrayLike) -> FloatArray:
    """`value` as float64, finite and above 0."""
    v = real(name, value, 0.0, np.inf)
    if not np.all((v > 0) & np.isfinite(v)):
        raise InvalidArgument(f"`{name}` must be finite and above 0, got {value!r}.")
    return v


def checked_probabilities(p_lower: ArrayLike, p_upper: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """`p_lower` and min(`p_upper`, 1 - `p_lower`), in [0, 1] and broadcast.

    The difference is exact for p_lower >= 1/2; below, it exceeds p_lower and decides nothing.
    """
    lower, upper = np.broadcast_arrays(
        real("p_lower", p_lower, 0.0, 1.0), real("p_upper", p_upper, 0.0, 1.0)
    )
    return lower, np.minimum(upper, 1 - lower)


def checked_discounts(tau: ArrayLike, slack: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """`tau` in [0, 1] and a finite `slack` of at least 0, float64."""
    t, s = real("tau", tau, 0.0, 1.0), real("slack", slack, 0.0, np.inf)
    if not np.all(np.isfinite(s)):
        raise InvalidArgument(f"`slack` must be finite, in noise units, got {slack!r}.")
    return t, s


def less_tau(
    p_lower: FloatArray, p_upper: FloatArray, tau: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What measured bounds say of the ideal law: p_lower - tau down, p_upper + tau up."""
    some = tau > 0
    lower = np.where(some, np.nextafter(p_lower - tau, -1.0), p_lower)
    upper = np.where(some, np.nextafter(p_upper + tau, 2.0), p_upper)
    return np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)


def in_input_units(shift: FloatArray, slack: FloatArray, sensitivity: FloatArray) -> FloatArray:
    """(shift - slack)/sensitivity, not below 0, rounded down; without slack an infinity stays."""
    safe = np.where(np.isfinite(shift), shift, 0.0)
    left = np.maximum(np.nextafter(rounding.down(safe) - slack, -np.inf), 0.0)
    kept = np.where((slack > 0) & np.isfinite(shift), left, shift)
    return rounding.down(kept / sensitivity)
