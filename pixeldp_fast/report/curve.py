"""The certified-accuracy curve, exact at every step; without labels, that of certified shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.types import ABSTAIN, ArrayLike, FloatArray, IntArray

CSV_COLUMNS = ("radius", "accuracy", "standard_error", "right", "examples")
CSV_COLUMNS_UNLABELLED = ("radius", "certified_share", "standard_error", "certified", "examples")


@dataclass(frozen=True, eq=False)
class Curve:
    """A share of the examples as a step function of the radius.

    With labels it is certified accuracy: the share predicted right with at least that radius.
    Without, it is the share certified: predicted with at least that radius, right or wrong.

    Parameters
    ----------
    radius : float64 [S]
        Ascending from 0: where the share changes, in input units. `count[s]` examples count at
        every r in (radius[s - 1], radius[s]]; beyond the last one, none.
    count : int64 [S]
    examples : int
    labelled : bool
        Whether only right predictions count.
    """

    radius: FloatArray
    count: IntArray
    examples: int
    labelled: bool = True

    @property
    def share(self) -> FloatArray:
        """Of the examples, float64 [S]."""
        share: FloatArray = self.count / float(self.examples)
        return share

    @property
    def standard_error(self) -> FloatArray:
        """Binomial standard error of `share` as an estimate for the population, float64 [S]."""
        return standard_error(self.share, self.examples)

    def at(self, radii: ArrayLike) -> FloatArray:
        """The share at each of `radii`, float64 [R]."""
        steps = np.searchsorted(self.radius, np.asarray(radii, dtype=np.float64), side="left")
        return np.append(self.share, 0.0)[steps]


def certified_curve(certificates: Certificates, labels: ArrayLike | None = None) -> Curve:
    """The curve of a batch of certificates.

    Parameters
    ----------
    labels : int [B], optional
        True classes; default: the ones stored with the certificates. Where there are none, the
        curve is that of the certified share.

    Source
        Cohen et al., ICML 2019, section 4 (certified accuracy at radius r).
    """
    if not len(certificates):
        raise InvalidArgument("There are no certificates to report on.")
    if labels is not None:
        certificates = certificates.with_labels(labels)
    labelled = certificates.labels is not None
    counts = certificates.prediction != ABSTAIN
    if labelled:
        counts &= certificates.prediction == certificates.labels
    radii = np.sort(certificates.radius[counts])
    steps = np.unique(np.append(radii, 0.0))
    count = len(radii) - np.searchsorted(radii, steps, side="left")
    return Curve(steps, count.astype(np.int64), len(certificates), labelled)


def standard_error(accuracy: ArrayLike, examples: int) -> FloatArray:
    """Binomial standard error of a share of `examples`."""
    share = np.asarray(accuracy, dtype=np.float64)
    error: FloatArray = np.sqrt(share * (1 - share) / examples)
    return error


def curves_csv(curves: Sequence[tuple[str, Curve]]) -> str:
    """Every step of every curve, all with labels or all without; a column `run` for several.

    A row's share holds for radii up to and including its own, down to the row before.
    """
    several = len(curves) > 1
    titles = CSV_COLUMNS if all(c.labelled for _, c in curves) else CSV_COLUMNS_UNLABELLED
    lines = [",".join((("run",) if several else ()) + titles)]
    for name, curve in curves:
        first = (_quoted(name),) if several else ()
        columns = (curve.radius, curve.share, curve.standard_error, curve.count)
        for row in zip(*(c.tolist() for c in columns), strict=True):
            lines.append(",".join((*first, *map(repr, row), str(curve.examples))))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text
