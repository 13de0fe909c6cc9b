"""The numbers that sum up a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pixeldp_fast.report.curve import Curve, certified_curve, standard_error
from pixeldp_fast.report.limits import largest_radius
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.types import ABSTAIN, FloatArray

# Steps between round radii, in the order of preference. Sorted and taken in all decades, neighbours
# differ by at most 3/2, less than 8/5: one of them fits 5 to 7 times into any number.
_STEPS = (1.0, 2.5, 5.0, 2.0, 1.5, 3.0, 4.0, 7.5)
_ROWS = range(5, 8)


class Named(NamedTuple):
    """Certificates and what tables and legends call them."""

    name: str
    certificates: Certificates


class ForAll(NamedTuple):
    """What one statement about all examples gives: each judged at alpha / B."""

    share: float
    average_radius: float


@dataclass(frozen=True, eq=False)
class Summary:
    """What is told about a run.

    Parameters
    ----------
    name : str
        Such as "pixeldp_cnn on digits (test)".
    terms : Terms or None
        None for a TSV, which states none.
    curve : Curve
    radii : float64 [R]
        In input units, ascending from 0.
    abstained : int
    average_radius : float
        Counting 0 where wrong or abstained (ACR of Zhai et al., ICLR 2020); without labels, where
        abstained.
    largest_radius : float or None
        What n unanimous draws give; None for a TSV.
    for_all : ForAll or None
        None for a TSV, and where draws stopped by a rule of their own alpha.
    """

    name: str
    terms: Terms | None
    curve: Curve
    radii: FloatArray
    abstained: int
    average_radius: float
    largest_radius: float | None
    for_all: ForAll | None = None

    @property
    def examples(self) -> int:
        """B."""
        return self.curve.examples

    @property
    def labelled(self) -> bool:
        """Whether shares are accuracies; without labels they count every certified prediction."""
        return self.curve.labelled

    @property
    def share(self) -> float:
        """The curve's at radius 0; an abstention does not count."""
        return float(self.curve.share[0])

    @property
    def shares(self) -> FloatArray:
        """The curve's at each of `radii`, float64 [R]."""
        return self.curve.at(self.radii)

    @property
    def standard_errors(self) -> FloatArray:
        """Of `shares`, float64 [R]."""
        return standard_error(self.shares, self.examples)

    @property
    def accuracy(self) -> float | None:
        """Share of the examples predicted right; None without labels."""
        return self.share if self.labelled else None

    @property
    def certified_accuracy(self) -> FloatArray | None:
        """At each of `radii`, float64 [R]; None without labels."""
        return self.shares if self.labelled else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; an infinite number is the string "inf".

        Without labels "certified_share" takes the place of "accuracy", and "certified_shares" that
        of "certified_accuracy".
        """
        whole, each, one = (
            ("accuracy", "certified_accuracy", "accuracy")
            if self.labelled
            else ("certified_share", "certified_shares", "share")
        )
        rows = zip(self.radii, self.shares, self.standard_errors, strict=True)
        return {
            "name": self.name,
            "examples": self.examples,
            whole: self.share,
            f"{whole}_standard_error": float(standard_error(self.share, self.examples)),
            "abstained": self.abstained,
            "average_certified_radius": _plain(self.average_radius),
            "largest_possible_radius": _plain(self.largest_radius),
            each: [
                {"radius": float(r), one: float(s), "standard_error": float(e)} for r, s, e in rows
            ],
            "for_all_at_once": None
            if self.for_all is None
            else {
                "share": self.for_all.share,
                "average_certified_radius": _plain(self.for_all.average_radius),
            },
            "terms": None if self.terms is None else self.terms.to_dict(),
        }


def summarise(run: Named, radii: Sequence[float] | None = None) -> Summary:
    """Sum up one run.

    Parameters
    ----------
    radii : float [R], optional
        In input units; default: `default_radii`. 0 is always added.
    """
    curve = certified_curve(run.certificates)
    asked = default_radii([curve]) if radii is None else radii
    terms = run.certificates.terms
    return Summary(
        name=run.name,
        terms=terms,
        curve=curve,
        radii=np.unique(np.append(np.asarray(asked, dtype=np.float64), 0.0)),
        abstained=int(np.sum(run.certificates.prediction == ABSTAIN)),
        average_radius=_average_radius(run.certificates),
        largest_radius=None if terms is None else largest_radius(terms),
        for_all=None if terms is None or terms.stop != "fixed" else _for_all(run.certificates),
    )


def _for_all(certificates: Certificates) -> ForAll:
    joint = certificates.for_all()
    return ForAll(float(certified_curve(joint).share[0]), _average_radius(joint))


def default_radii(curves: Sequence[Curve]) -> list[float]:
    """Five to seven round radii that reach to the end of the longest of the curves."""
    ends = [float(c.radius[np.isfinite(c.radius)][-1]) for c in curves]
    top = max(ends, default=0.0)
    if not top > 0:
        return [0.25, 0.5, 0.75, 1.0, 1.25]
    decade = 10.0 ** (math.floor(math.log10(top)) - 1)
    for scale in (decade, 10 * decade):
        for step in _STEPS:
            rows = math.floor(top / (step * scale))
            if rows in _ROWS:
                return [float(f"{k * step * scale:.6g}") for k in range(1, rows + 1)]
    raise AssertionError("the steps leave no gap")


def _average_radius(certificates: Certificates) -> float:
    if certificates.labels is not None:
        return certificates.average_radius()
    return float(np.mean(np.where(certificates.prediction == ABSTAIN, 0.0, certificates.radius)))


def _plain(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
