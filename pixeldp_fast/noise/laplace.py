"""Laplace noise: the mechanism of 1-norm certificates in the PixelDP paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.noise import uniforms
from pixeldp_fast.noise.mechanism import AbstractMechanism, checked_curve_arguments, positive
from pixeldp_fast.types import ArrayLike, FloatArray, Norm


@dataclass(frozen=True)
class Laplace(AbstractMechanism):
    """Independent Laplace noise of scale b = `scale` (standard deviation sqrt(2) b).

    Parameters
    ----------
    scale : float
        Above 0, in the units of the noise point.

    Fidelity
        Sign bit times -ln u on 31-bit uniforms: no value beyond 22.2 scales (the ideal law has
        2.3e-10 there), float32 sums. Certificates from it hold for real arithmetic.
    Source
        Curves: the one-dimensional shift; for a fixed 1-norm it is the worst case in any
        dimension. Trade-off: Dong, Roth and Su, 2019, section 2.
    """

    scale: float
    norm: ClassVar[Norm] = Norm.ONE
    native_law: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", positive("scale", self.scale))

    @property
    def noise_scale(self) -> float:
        return self.scale

    @property
    def std(self) -> float:
        return math.sqrt(2) * self.scale

    def privacy_profile(self, epsilon: ArrayLike, shift: ArrayLike) -> FloatArray:
        """delta = max(0, 1 - e^{(epsilon - r)/2}), r = shift/scale."""
        e, r = checked_curve_arguments("epsilon", epsilon, math.inf, shift, self.scale)
        gap = np.minimum(e - np.minimum(r, 1e300), 0.0)
        # Equal here, r may still exceed epsilon by its rounding, unless the division was exact.
        exact_division = math.frexp(self.scale)[0] == 0.5
        unsure = (gap < 0) | ((e == r) & (r > 0) & (not exact_division))
        delta = rounding.up(-np.expm1(gap / 2)) + np.where(unsure, 2.3e-16 * r, 0.0)
        return np.where(r < math.inf, np.clip(delta, 0.0, 1.0), 1.0)

    def tradeoff(self, alpha: ArrayLike, shift: ArrayLike) -> FloatArray:
        """T = 1 - e^r alpha, then e^-r/(4 alpha) from e^-r/2, then e^-r (1 - alpha) from 1/2."""
        a, r = checked_curve_arguments("alpha", alpha, 1.0, shift, self.scale)
        decay = np.exp(-r)
        small = (a < decay / 2) & (r < 700)  # e^r overflows beyond; there the curve is above 1/2
        growth = np.exp(np.where(small, r, 0.0))
        safe_a = np.where(small, 1.0, np.maximum(a, 1e-300))
        middle = np.minimum(decay / (4 * safe_a), 0.5)
        curve = np.where(small, 1 - growth * a, np.where(a <= 0.5, middle, decay * (1 - a)))
        # exp(r) alpha <= 1/2 where it is used, so its error is below one margin of a term of 1.
        return np.clip(rounding.down(curve), 0.0, 1.0)

    def unit_noise(self, words: Any, xp: Any) -> Any:
        """The top bit is the sign; the other 31 are u; the size is -ln u."""
        size = uniforms.minus_log(words & 0x7FFFFFFF, 31, xp)
        return xp.where(words >= 0x80000000, -size, size)
