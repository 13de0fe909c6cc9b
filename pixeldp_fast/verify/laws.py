"""The noise laws' two exact curves, in 40 digits; r is the shift in units of the scale."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

from pixeldp_fast.errors import RecordError
from pixeldp_fast.verify.arithmetic import Real, mp, normal_cdf, normal_quantile


@dataclass(frozen=True)
class AbstractLaw(abc.ABC):
    """One law of the noise, as a record names it; with a lattice, rounded to multiples of 1/m."""

    scale: float
    lattice: int | None = None
    parameter: ClassVar[str]  # what the record calls the scale
    classical: ClassVar[bool] = False  # whether the paper's own bound is proved for it

    @abc.abstractmethod
    def upper_tail(self, x: Real) -> Real:
        """P(noise > x scales), x >= 0."""

    @abc.abstractmethod
    def tradeoff(self, alpha: Real, r: Real) -> Real:
        """T_r(alpha): the least type II error at level `alpha` in [0, 1]."""

    @abc.abstractmethod
    def profile(self, epsilon: Real, r: Real) -> Real:
        """delta_r(epsilon): the least delta of (epsilon, delta)-differential privacy."""


class GaussianLaw(AbstractLaw):
    """Source: Dong, Roth and Su, 2019, section 2.2; Balle and Wang, ICML 2018, Theorem 8."""

    parameter = "sigma"
    classical = True

    def upper_tail(self, x: Real) -> Real:
        return normal_cdf(-x)

    def tradeoff(self, alpha: Real, r: Real) -> Real:
        if alpha <= 0 or alpha >= 1:
            return mp().mpf(alpha <= 0)
        return normal_cdf(-normal_quantile(alpha) - r)

    def profile(self, epsilon: Real, r: Real) -> Real:
        if r == 0:
            return mp().mpf(0)
        second = mp().exp(epsilon) * normal_cdf(-r / 2 - epsilon / r)
        return normal_cdf(r / 2 - epsilon / r) - second


class LaplaceLaw(AbstractLaw):
    """Source: Dong, Roth and Su, 2019, section 2; the one-axis shift is the worst."""

    parameter = "scale"
    classical = True

    def upper_tail(self, x: Real) -> Real:
        return mp().exp(-x) / 2

    def tradeoff(self, alpha: Real, r: Real) -> Real:
        decay = mp().exp(-r)
        if alpha < decay / 2:
            return 1 - alpha / decay
        return decay / (4 * alpha) if 2 * alpha <= 1 else decay * (1 - alpha)

    def profile(self, epsilon: Real, r: Real) -> Real:
        return max(mp().mpf(0), -mp().expm1((epsilon - r) / 2))


class UniformLaw(AbstractLaw):
    """Source: Yang et al., ICML 2020; the one-axis shift is the worst."""

    parameter = "half_width"

    def upper_tail(self, x: Real) -> Real:
        return max((1 - x) / 2, mp().mpf(0))

    def tradeoff(self, alpha: Real, r: Real) -> Real:
        return max(mp().mpf(0), 1 - alpha - r / 2)

    def profile(self, epsilon: Real, r: Real) -> Real:
        del epsilon
        return min(mp().mpf(1), r / 2)


LAWS: dict[str, type[AbstractLaw]] = {
    "Gaussian": GaussianLaw,
    "Laplace": LaplaceLaw,
    "Uniform": UniformLaw,
}


def law_of(record: Any) -> AbstractLaw:
    """The law that a record's `mechanism` names.

    Raises
    ------
    RecordError
        For an unknown law or parameter, by name.
    """
    if not isinstance(record, dict) or record.get("law") not in LAWS:
        found = record.get("law") if isinstance(record, dict) else record
        raise RecordError(f"`mechanism` names the law {found!r}; known here: {', '.join(LAWS)}.")
    law = LAWS[record["law"]]
    unknown = record.keys() - {"law", law.parameter, "lattice"}
    if unknown:
        raise RecordError(
            f"`mechanism` has {', '.join(sorted(map(repr, unknown)))}, which this verification "
            "does not know: it refuses the record rather than ignore a part of it."
        )
    scale: Any = record.get(law.parameter)
    if not (type(scale) in (int, float) and 0 < scale < float("inf")):
        raise RecordError(f"`mechanism` must have a finite {law.parameter} above 0, not {scale!r}.")
    lattice = record.get("lattice")
    if lattice is not None and not (type(lattice) is int and lattice > 0 and law is not UniformLaw):
        raise RecordError(f"`mechanism` has the lattice {lattice!r}, which no {record['law']} has.")
    return law(float(scale), lattice)
