"""Gaussian noise: the mechanism of 2-norm certificates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, ClassVar

import numpy as np
from scipy import special

from pixeldp_fast import rounding
from pixeldp_fast.noise import exact, uniforms
from pixeldp_fast.noise.mechanism import (
    AbstractMechanism,
    checked_curve_arguments,
    checked_lattice,
    positive,
)
from pixeldp_fast.types import ArrayLike, FloatArray, Norm

_Point = tuple[Decimal, Decimal, Decimal]  # x, phi(x), Q(x)
_UNDERFLOW = 1e-300  # added to delta: below it float64 has lost the digits to round up from


@dataclass(frozen=True, repr=False)
class Gaussian(AbstractMechanism):
    """Independent normal noise of standard deviation `sigma` on every coordinate.

    Parameters
    ----------
    sigma : float
        Above 0, in the units of the noise point: [0, 1] pixels where the noise is on the image.
    lattice : int or None
        m: the noise is rounded to multiples of 1/m and added in integers, so that certificates
        hold for the program that runs (255 for 8-bit images). None: floats.

    Fidelity
        The float sampler is Box-Muller on 32-bit uniforms: no value beyond 6.76 sigma (the ideal
        law has 1.4e-11 there), float32 sums. Certificates from it hold for real arithmetic.
        With a lattice the law is exact but for `noise.lattice.tau`, which bounds take off.
    Source
        Curves: Balle and Wang, ICML 2018, Theorem 8; Dong, Roth and Su, 2019, section 2.2.
    """

    sigma: float
    lattice: int | None = None
    norm: ClassVar[Norm] = Norm.TWO
    native_law: ClassVar[int | None] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", positive("sigma", self.sigma))
        object.__setattr__(self, "lattice", checked_lattice(self.lattice, self.sigma))

    @property
    def noise_scale(self) -> float:
        return self.sigma

    @property
    def std(self) -> float:
        return self.sigma

    def privacy_profile(self, epsilon: ArrayLike, shift: ArrayLike) -> FloatArray:
        """delta = Phi(r/2 - epsilon/r) - e^epsilon Phi(-r/2 - epsilon/r), r = shift/sigma."""
        e, r = checked_curve_arguments("epsilon", epsilon, math.inf, shift, self.sigma)
        safe_r = np.where((r > 0) & (r < math.inf), r, 1.0)
        with np.errstate(over="ignore"):
            t = e / safe_r - safe_r / 2
        # Both terms carry exp(-t^2/2), since epsilon = r t + r^2/2; taken out for t >= 0 it leaves
        # a difference of two scaled functions of order 1, so that a small delta keeps its digits.
        tail_t = np.clip(t, 0.0, 100.0)  # beyond, exp(-t^2/2) is 0 either way
        scaled = 0.5 * np.exp(-(tail_t**2) / 2)
        tail_first = scaled * special.erfcx(tail_t / math.sqrt(2))
        tail_second = scaled * special.erfcx((tail_t + safe_r) / math.sqrt(2))
        bulk_t = np.minimum(t, 0.0)
        bulk_first = special.ndtr(-bulk_t)
        exponent = np.where(t < 0, e, 0.0) + special.log_ndtr(-bulk_t - safe_r)
        bulk_second = np.exp(np.minimum(exponent, 0.0))
        first = np.where(t >= 0, tail_first, bulk_first)
        second = np.where(t >= 0, tail_second, bulk_second)
        # What the two terms may each be off: a few steps, and the rounding of t where r is large.
        error = first * (1e-14 + 4e-16 * safe_r * (1 + np.minimum(np.abs(t), 100.0)))
        delta = rounding.up(np.maximum(first - second, 0.0)) + error + _UNDERFLOW
        return np.where(r > 0, np.where(r < math.inf, np.minimum(delta, 1.0), 1.0), 0.0)

    def tradeoff(self, alpha: ArrayLike, shift: ArrayLike) -> FloatArray:
        """T(alpha) = Phi(Phi^-1(1 - alpha) - r), r = shift/sigma."""
        a, r = checked_curve_arguments("alpha", alpha, 1.0, shift, self.sigma)
        beta = rounding.down(special.ndtr(-special.ndtri(a) - np.minimum(r, 1e300)))
        return np.clip(np.where((a == 1) | (r == math.inf), 0.0, beta), 0.0, 1.0)

    def unit_noise(self, words: Any, xp: Any) -> Any:
        """Box-Muller: radius from words 0 and 2, angle from words 1 and 3; cosine, then sine."""
        radius = xp.sqrt(2 * uniforms.minus_log(words[..., 0::2], 32, xp))
        angle = uniforms.angle(words[..., 1::2], xp)
        pairs = xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], -1)
        return pairs.reshape(words.shape)

    def lattice_tails(self, least: Decimal) -> list[Decimal]:
        """Q((k - 1/2) h), h = 1/(sigma m): the density integrated from 0 on, step by step.

        Guarantee
            Within 1e-59. With u = 1e-69 above the relative error of an operation, a step of at most
            1/8 below x = 10 has at most 80 terms, whose sum is off by 1000 u of itself, cut short
            by 1e-65. So the density is off by 3e-60 of itself after 2^18 steps, and the tail by
            less: the steps' areas add up to 1/2.
        """
        assert self.lattice is not None
        with localcontext(exact.DIGITS):
            step = 1 / (Decimal(self.sigma) * self.lattice)
            parts = int(8 * step) + 1
            at = _moved((Decimal(0), 1 / exact.ROOT_TWO_PI, Decimal("0.5")), step / 2, parts)
            found = [at[2]]
            while found[-1] >= least:
                at = _moved(at, step, parts)
                found.append(at[2])
        return found


def _moved(at: _Point, step: Decimal, parts: int) -> _Point:
    """(x, phi(x), Q(x)) at x + step, in equal parts."""
    x, density, tail = at
    part = step / parts
    for _ in range(parts):
        ratio, area = _expanded(x, part)
        x, density, tail = x + part, density * ratio, tail - density * area
    return x, density, tail


def _expanded(x: Decimal, step: Decimal) -> tuple[Decimal, Decimal]:
    """phi(x + step)/phi(x) and the integral of phi(x + t)/phi(x) over t up to `step`.

    phi(x + t)/phi(x) = e^{-x t - t^2/2} = sum a_n t^n with n a_n = -x a_{n-1} - a_{n-2}. The bounds
    are the terms' of e^{x t + t^2/2}; once two are negligible, all that follow add up to less.
    """
    first, second = x * step, step * step
    term, before = Decimal(1), Decimal(0)
    bounds, rates = (1.0, 0.0), (float(first) + 1e-9, float(second) + 1e-9)
    ratio, area, n = Decimal(0), Decimal(0), 0
    while max(bounds) > exact.NEGLIGIBLE:
        n += 1
        ratio += term
        area += term * exact.INVERSES[n]
        term, before = -(first * term + second * before) * exact.INVERSES[n], term
        bounds = (rates[0] * bounds[0] + rates[1] * bounds[1]) / n, bounds[0]
    return ratio, area * step
