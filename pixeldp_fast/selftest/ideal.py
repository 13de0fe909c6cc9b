"""The laws as noise should follow them, apart from the code that samples them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.laplace import Laplace
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.uniform import Uniform
from pixeldp_fast.types import ArrayLike, FloatArray

_REACH = 60  # scales; beyond, no law has anything that a float64 moment would notice


@dataclass(frozen=True)
class Ideal:
    """A mechanism's law for one coordinate, rounded to the lattice where it has one.

    Parameters
    ----------
    mechanism : AbstractMechanism
    """

    mechanism: AbstractMechanism

    def cdf(self, values: ArrayLike) -> FloatArray:
        """P(noise <= value), for values that the noise can take."""
        half = 0.0 if self.mechanism.lattice is None else 0.5 / self.mechanism.lattice
        return self._smooth_cdf(np.asarray(values, dtype=np.float64) + half)

    def below(self, values: ArrayLike) -> FloatArray:
        """P(noise < value), for values that the noise can take."""
        half = 0.0 if self.mechanism.lattice is None else 0.5 / self.mechanism.lattice
        return self._smooth_cdf(np.asarray(values, dtype=np.float64) - half)

    def _smooth_cdf(self, values: FloatArray) -> FloatArray:
        unit = _CDFS[type(self.mechanism)]
        return unit(values / self.mechanism.noise_scale)

    def upper_tail(self, probability: float) -> tuple[float, float]:
        """A value that is exceeded with about this probability, and the exact probability."""
        scale, lattice = self.mechanism.noise_scale, self.mechanism.lattice
        at = scale * _QUANTILES[type(self.mechanism)](probability)
        if lattice is not None:  # between two steps
            at = (np.floor(at * lattice) + 0.5) / lattice
        return float(at), float(self._smooth_cdf(np.array(-at)))

    def moments(self) -> tuple[float, float]:
        """The variance, and the fourth moment over its square."""
        scale, lattice = self.mechanism.noise_scale, self.mechanism.lattice
        if lattice is None:
            variance, kurtosis = _MOMENTS[type(self.mechanism)]
            return variance * scale**2, kurtosis
        k = np.arange(1, int(_REACH * scale * lattice) + 2, dtype=np.float64)
        tail = self._smooth_cdf(-(k - 0.5) / lattice)
        mass = tail - np.append(tail[1:], 0.0)  # of k and of -k
        second, fourth = (2 * float(np.sum(mass * (k / lattice) ** p)) for p in (2, 4))
        return second, fourth / second**2


def _laplace_cdf(x: FloatArray) -> FloatArray:
    tail = np.exp(-np.abs(x)) / 2
    return np.where(x < 0, tail, 1 - tail)


_CDFS: dict[type[AbstractMechanism], Callable[[FloatArray], FloatArray]] = {
    Gaussian: special.ndtr,
    Laplace: _laplace_cdf,
    Uniform: lambda x: np.clip((1 + x) / 2, 0.0, 1.0),
}
_QUANTILES: dict[type[AbstractMechanism], Callable[[float], float]] = {
    Gaussian: lambda p: float(-special.ndtri(p)),
    Laplace: lambda p: float(-np.log(2 * p)),
    Uniform: lambda p: 1 - 2 * p,
}
# Variance at scale 1, and fourth moment over its square.
_MOMENTS: dict[type[AbstractMechanism], tuple[float, float]] = {
    Gaussian: (1.0, 3.0),
    Laplace: (2.0, 6.0),
    Uniform: (1 / 3, 9 / 5),
}
