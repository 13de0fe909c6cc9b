"""Uniform noise: the mechanism of the widest 1-norm certificates."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import uniforms
from pixeldp_fast.noise.mechanism import AbstractMechanism, checked_curve_arguments, positive
from pixeldp_fast.types import ArrayLike, FloatArray, Norm


@dataclass(frozen=True, repr=False)
class Uniform(AbstractMechanism):
    """Independent noise, uniform on [-`half_width`, `half_width`] on every coordinate.

    Parameters
    ----------
    half_width : float
        Above 0, in the units of the noise point.
    lattice : None
        Uniform noise has no lattice mode yet: anything else is refused.

    Fidelity
        2^32 equidistant values, float32 sums. Certificates from it hold for real arithmetic.
    Source
        Curves: Yang et al., ICML 2020, Theorem 4.1 and appendix; the one-axis shift is the worst.
    """

    half_width: float
    lattice: InitVar[int | None] = None
    norm: ClassVar[Norm] = Norm.ONE
    native_law: ClassVar[int | None] = 2

    def __post_init__(self, lattice: int | None) -> None:
        if lattice is not None:
            raise InvalidArgument(
                f"Uniform noise has no lattice mode yet, so `lattice={lattice!r}` cannot hold; use "
                "Laplace (the same norm) or Gaussian, or leave `lattice` out."
            )
        object.__setattr__(self, "half_width", positive("half_width", self.half_width))

    @property
    def noise_scale(self) -> float:
        return self.half_width

    @property
    def std(self) -> float:
        return self.half_width / math.sqrt(3)

    def privacy_profile(self, epsilon: ArrayLike, shift: ArrayLike) -> FloatArray:
        """delta = min(1, r/2) for every epsilon, r = shift/half_width."""
        _, r = checked_curve_arguments("epsilon", epsilon, math.inf, shift, self.half_width)
        return np.minimum(rounding.up(r / 2), 1.0)

    def tradeoff(self, alpha: ArrayLike, shift: ArrayLike) -> FloatArray:
        """T(alpha) = max(0, 1 - alpha - r/2), r = shift/half_width."""
        a, r = checked_curve_arguments("alpha", alpha, 1.0, shift, self.half_width)
        curve = 1 - a - r / 2
        cancellation = np.where(a < 0.5, 1.2e-16, 0.0) + 1.2e-16 * np.minimum(r, 4.0)
        return np.clip(rounding.down(curve) - cancellation, 0.0, 1.0)

    def unit_noise(self, words: Any, xp: Any) -> Any:
        """2 u - 1, computed from the word as a signed integer, so that it is symmetric."""
        return uniforms.signed_unit(words, xp)
