"""The certified-accuracy curve, exact at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.types import ABSTAIN, ArrayLike, FloatArray, IntArray

CSV_COLUMNS = ("radius", "accuracy", "standard_error", "right", "examples")


@dataclass(frozen=True, eq=False)
class Curve:
    """Certified accuracy as a step function of the radius.

    Parameters
    ----------
    radius : float64 [S]
        Ascending from 0: where the accuracy changes, in input units. `right[s]` examples are right
        with a radius of at least every r in (radius[s - 1], radius[s]]; beyond the last one, none.
    right : int64 [S]
    examples : int
    """

    radius: FloatArray
    right: IntArray
    examples: int

    @property
    def accuracy(self) -> FloatArray:
        """Share of the examples, float64 [S]."""
        share: FloatArray = self.right / float(self.examples)
        return share

    @property
    def standard_error(self) -> FloatArray:
        """Binomial standard error of `accuracy` as an estimate for the population, float64 [S]."""
        return standard_error(self.accuracy, self.examples)

    def at(self, radii: ArrayLike) -> FloatArray:
        """Certified accuracy at each of `radii`, float64 [R]."""
        steps = np.searchsorted(self.radius, np.asarray(radii, dtype=np.float64), side="left")
        return np.append(self.accuracy, 0.0)[steps]


def certified_curve(certificates: Certificates, labels: ArrayLike | None = None) -> Curve:
    """The curve of a batch of certificates.

    Parameters
    ----------
    labels : int [B], optional
        True classes; default: the ones stored with the certificates.

    Source
        Cohen et al., ICML 2019, section 4 (certified accuracy at radius r).
    """
    if not len(certificates):
        raise InvalidArgument("There are no certificates to report on.")
    if labels is not None:
        certificates = certificates.with_labels(labels)
    truth = certificates.labels
    if truth is None:
        raise InvalidArgument("`labels` are needed: none are stored with these certificates.")
    is_right = (certificates.prediction == truth) & (certificates.prediction != ABSTAIN)
    radii = np.sort(certificates.radius[is_right])
    steps = np.unique(np.append(radii, 0.0))
    right = len(radii) - np.searchsorted(radii, steps, side="left")
    return Curve(steps, right.astype(np.int64), len(certificates))


def standard_error(accuracy: ArrayLike, examples: int) -> FloatArray:
    """Binomial standard error of a share of `examples`."""
    share = np.asarray(accuracy, dtype=np.float64)
    error: FloatArray = np.sqrt(share * (1 - share) / examples)
    return error


def curves_csv(curves: Sequence[tuple[str, Curve]]) -> str:
    """Every step of every curve; a first column `run` where there are several.

    A row's accuracy holds for radii up to and including its own, down to the row before.
    """
    several = len(curves) > 1
    lines = [",".join((("run",) if several else ()) + CSV_COLUMNS)]
    for name, curve in curves:
        first = (_quoted(name),) if several else ()
        columns = (curve.radius, curve.accuracy, curve.standard_error, curve.right)
        for row in zip(*(c.tolist() for c in columns), strict=True):
            lines.append(",".join((*first, *map(repr, row), str(curve.examples))))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text
