"""Laplace noise: the mechanism of 1-norm certificates in the PixelDP paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, ClassVar

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.noise import exact, uniforms
from pixeldp_fast.noise.mechanism import (
    AbstractMechanism,
    checked_curve_arguments,
    checked_lattice,
    positive,
)
from pixeldp_fast.types import ArrayLike, FloatArray, Norm


@dataclass(frozen=True, repr=False)
class Laplace(AbstractMechanism):
    """Independent Laplace noise of scale b = `scale` (standard deviation sqrt(2) b).

    Parameters
    ----------
    scale : float
        Above 0, in the units of the noise point.
    lattice : int or None
        m: the noise is rounded to multiples of 1/m and added in integers; see `Gaussian`.

    Fidelity
        Sign bit times -ln u on 31-bit uniforms: no value beyond 22.2 scales (the ideal law has
        2.3e-10 there), float32 sums. Certificates from it hold for real arithmetic.
        With a lattice the law is exact but for `noise.lattice.tau`, which bounds take off.
    Source
        Curves: the one-dimensional shift; for a fixed 1-norm it is the worst case in any
        dimension. Trade-off: Dong, Roth and Su, 2019, section 2.
    """

    scale: float
    lattice: int | None = None
    norm: ClassVar[Norm] = Norm.ONE
    native_law: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", positive("scale", self.scale))
        object.__setattr__(self, "lattice", checked_lattice(self.lattice, self.scale))

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

    def lattice_tails(self, least: Decimal) -> list[Decimal]:
        """e^-x / 2, x = (k - 1/2)/(b m): a geometric series.

        Guarantee
            Within 1e-60: k < 2^20 products of two factors, each off by at most 1e-68 of itself.
        """
        assert self.lattice is not None
        with localcontext(exact.DIGITS):
            step = 1 / (Decimal(self.scale) * self.lattice)
            found, ratio = [(-step / 2).exp() / 2], (-step).exp()
            while found[-1] >= least:
                found.append(found[-1] * ratio)
        return found
