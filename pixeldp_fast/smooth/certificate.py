"""A batch of certificates: a pure function of its terms and tallies, with the field's summaries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from pixeldp_fast.backends.tally import Tally, merge
from pixeldp_fast.bounds.registry import radius_function
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.smooth.inputs import checked_alpha
from pixeldp_fast.smooth.judge import Terms, judge
from pixeldp_fast.smooth.stopping import check_stopped
from pixeldp_fast.stats.levels import bonferroni, holm
from pixeldp_fast.types import ABSTAIN, ArrayLike, FloatArray, IntArray, Norm


@dataclass(frozen=True)
class Certificate:
    """One example's certificate; see `Certificates` for the meaning of the fields."""

    index: int
    prediction: int
    radius: float
    p_lower: float
    p_upper: float
    counts: tuple[int, ...]
    label: int | None
    terms: Terms | None

    @property
    def sound(self) -> str | None:
        """`lattice`: the claim holds for the program that runs; or `real arithmetic`."""
        return None if self.terms is None else self.terms.sound

    @property
    def abstained(self) -> bool:
        """Whether nothing is claimed for this example."""
        return self.prediction == ABSTAIN


@dataclass(frozen=True, eq=False)
class Certificates:
    """Certificates of B examples that share their terms.

    Parameters
    ----------
    index : int64 [B]
        The examples' addresses in the stream; in a data set, their positions.
    prediction : int64 [B]
        The certified class, or ABSTAIN = -1.
    radius : float64 [B]
        In input units and the norm of the terms; 0 where abstained. The claim is for every
        perturbation smaller than the radius.
    p_lower, p_upper : float64 [B]
        Bounds on the probability of the class and of its strongest competitor; NaN from a TSV.
    selection, estimation : Tally or None
        The draws behind the numbers; None from a TSV.
    terms : Terms or None
        None from a TSV, which does not say.
    labels : int64 [B] or None
        True classes, where known.
    seconds : float64 [B] or None
        Time per example; not part of the certificate.

    Guarantee
        Per example, with probability at least 1 - alpha over the draws; `jointly` and `for_all`
        make a claim about all at once. For inputs chosen without knowledge of the seed.
    """

    index: IntArray
    prediction: IntArray
    radius: FloatArray
    p_lower: FloatArray
    p_upper: FloatArray
    selection: Tally | None
    estimation: Tally | None
    terms: Terms | None
    labels: IntArray | None = None
    seconds: FloatArray | None = None

    @classmethod
    def judged(
        cls,
        terms: Terms,
        index: IntArray,
        selection: Tally,
        estimation: Tally,
        labels: IntArray | None = None,
        seconds: FloatArray | None = None,
    ) -> Certificates:
        """The certificates that these terms and tallies make."""
        verdict = judge(terms, selection, estimation)
        check_stopped(terms, selection, estimation)
        return cls(
            index,
            verdict.prediction,
            verdict.radius,
            verdict.p_lower,
            verdict.p_upper,
            selection,
            estimation,
            terms,
            labels,
            seconds,
        )

    @property
    def counts(self) -> IntArray:
        """Estimation votes, int64 [B, K + 1]; the last column counts non-finite outputs."""
        return self._tallies()[1].counts

    @property
    def sound(self) -> str:
        """`lattice`: claims hold for the program that runs; or `real arithmetic`."""
        return self._terms().sound

    @property
    def n(self) -> int:
        """Estimation draws per example; where some stopped early, the most."""
        return self._terms().n

    @property
    def draws(self) -> IntArray:
        """Estimation draws of every example, int64 [B]."""
        return self._tallies()[1].draws

    def __len__(self) -> int:
        return len(self.prediction)

    def __iter__(self) -> Iterator[Certificate]:
        return (self._one(i) for i in range(len(self)))

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> Certificate: ...

    @overload
    def __getitem__(self, rows: slice | Sequence[int] | npt.NDArray[Any]) -> Certificates: ...

    def __getitem__(
        self, rows: int | np.integer[Any] | slice | Sequence[int] | npt.NDArray[Any]
    ) -> Certificate | Certificates:
        """One certificate by its place; several by slice, index array or mask."""
        if isinstance(rows, (int, np.integer)):
            return self._one(range(len(self))[rows])
        if not isinstance(rows, slice):
            rows = np.asarray(rows)
            rows = rows if rows.size else rows.astype(np.int64)
        at = np.atleast_1d(np.arange(len(self))[rows])
        return Certificates(
            self.index[at],
            self.prediction[at],
            self.radius[at],
            self.p_lower[at],
            self.p_upper[at],
            None if self.selection is None else self.selection.take(at),
            None if self.estimation is None else self.estimation.take(at),
            self.terms,
            None if self.labels is None else self.labels[at],
            None if self.seconds is None else self.seconds[at],
        )

    def __add__(self, other: Certificates) -> Certificates:
        return concatenate([self, other])

    def accuracy_at(self, radii: ArrayLike, labels: ArrayLike | None = None) -> FloatArray:
        """Certified accuracy: the share predicted right with a radius of at least each of `radii`.

        Parameters
        ----------
        radii : float [R]
            In input units.
        labels : int [B], optional
            True classes; default: the ones stored.

        Returns
        -------
        accuracy : float64 [R]
            At 0: the share right and not abstained.
        """
        right = self._right(labels)
        asked = np.atleast_1d(np.asarray(radii, dtype=np.float64))
        return np.array(
            [np.mean(right & (self.radius >= r)) if len(self) else np.nan for r in asked]
        )

    def average_radius(self, labels: ArrayLike | None = None) -> float:
        """Mean certified radius, counting 0 where wrong or abstained (ACR of Zhai et al., 2020)."""
        right = self._right(labels)
        return float(np.mean(np.where(right, self.radius, 0.0))) if len(self) else float("nan")

    def recertify(
        self, *, alpha: float | None = None, bound: str | None = None, norm: Any = None
    ) -> Certificates:
        """The same draws judged at another level, bound or norm, without the model.

        Guarantee
            As for a first certificate, provided that alpha was chosen before looking at the draws.

        Raises
        ------
        RecordError
            When there are no tallies (a TSV) or no sensitivity for the norm, and for another alpha
            where the draws stopped by a rule that depends on it.
        """
        terms = self._terms()
        if terms.stop != "fixed" and alpha is not None and alpha != terms.alpha:
            raise RecordError(
                f"These draws stopped by a rule at alpha = {terms.alpha:g} (stop={terms.stop!r}); "
                f"they cannot be judged at {alpha!r}. Certify again."
            )
        asked = replace(
            terms,
            alpha=terms.alpha if alpha is None else checked_alpha(alpha),
            bound=terms.bound if bound is None else bound,
            norm=terms.norm if norm is None else Norm.parse(norm),
        )
        radius_function(asked.bound)
        selection, estimation = self._tallies()
        return Certificates.judged(
            asked, self.index, selection, estimation, self.labels, self.seconds
        )

    def for_all(self, alpha: float | None = None) -> Certificates:
        """The same draws judged so that the claims of all examples hold at once.

        Guarantee
            With probability at least 1 - alpha (default: that of the terms) every prediction and
            radius returned is right: each is judged at alpha / B (Bonferroni). B are all that were
            drawn for: of a part chosen by what its draws gave, nothing follows.

        Raises
        ------
        RecordError
            As for `recertify`.
        """
        level = self._terms().alpha if alpha is None else checked_alpha(alpha)
        return self.recertify(alpha=bonferroni(level, max(len(self), 1)))

    def jointly(self, radius: float = 0.0, alpha: float | None = None) -> npt.NDArray[np.bool_]:
        """Which examples are certified at `radius` in one statement about all of them.

        Parameters
        ----------
        radius : float
            In input units, chosen before looking at the draws.
        alpha : float, optional
            Default: that of the terms.

        Returns
        -------
        certified : bool [B]

        Guarantee
            With probability at least 1 - alpha all examples marked have, at once, a radius of at
            least `radius`. Never fewer than `for_all` gives. As there, leave no example out for
            what its draws gave.
        Source
            Holm, 1979.

        Raises
        ------
        RecordError
            As for `recertify`.
        """
        level = self._terms().alpha if alpha is None else checked_alpha(alpha)
        if not len(self):
            return np.zeros(0, dtype=bool)

        def certified(at: float) -> npt.NDArray[np.bool_]:
            found = self.recertify(alpha=at)
            return np.asarray((found.prediction != ABSTAIN) & (found.radius >= radius))

        return holm(certified, level, len(self))

    def to_tsv(self, path: str | os.PathLike[str], labels: ArrayLike | None = None) -> None:
        """Write Cohen's columns, radii rounded down; see `records.write_tsv`."""
        from pixeldp_fast.smooth import records

        records.write_tsv(self if labels is None else self.with_labels(labels), path)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained JSON record per example; see `records.write_jsonl`."""
        from pixeldp_fast.smooth import records

        records.write_jsonl(self, path)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write one row per example with pyarrow (extra `parquet`)."""
        from pixeldp_fast.smooth import records

        records.write_parquet(self, path)

    @classmethod
    def from_tsv(cls, path: str | os.PathLike[str]) -> Certificates:
        """Read Cohen's columns, for summaries and plots; see `records.read_tsv`."""
        from pixeldp_fast.smooth import records

        return records.read_tsv(path)

    @classmethod
    def from_jsonl(cls, path: str | os.PathLike[str]) -> Certificates:
        """Read and judge again what `to_jsonl` wrote; see `records.read_jsonl`."""
        from pixeldp_fast.smooth import records

        return records.read_jsonl(path)

    def with_labels(self, labels: ArrayLike) -> Certificates:
        """The same certificates with true classes."""
        return replace(self, labels=self._checked_labels(labels))

    def _one(self, i: int) -> Certificate:
        return Certificate(
            int(self.index[i]),
            int(self.prediction[i]),
            float(self.radius[i]),
            float(self.p_lower[i]),
            float(self.p_upper[i]),
            () if self.estimation is None else tuple(int(c) for c in self.estimation.counts[i]),
            None if self.labels is None else int(self.labels[i]),
            self.terms,
        )

    def _right(self, labels: ArrayLike | None) -> Any:
        truth = self.labels if labels is None else self._checked_labels(labels)
        if truth is None:
            raise InvalidArgument("`labels` are needed: none are stored with these certificates.")
        return (self.prediction == truth) & (self.prediction != ABSTAIN)

    def _checked_labels(self, labels: ArrayLike) -> IntArray:
        values = np.asarray(labels)
        if values.shape != (len(self),) or values.dtype.kind not in "iu":
            raise InvalidArgument(
                f"`labels` must be integers [{len(self)}], got {values.dtype} {values.shape}."
            )
        if self.terms is not None:
            check_labels(values, self.terms.num_classes)
        return values.astype(np.int64)

    def _terms(self) -> Terms:
        if self.terms is None:
            raise RecordError("These certificates came from a TSV, which holds no counts or terms.")
        return self.terms

    def _tallies(self) -> tuple[Tally, Tally]:
        self._terms()
        assert self.selection is not None
        assert self.estimation is not None
        return self.selection, self.estimation


def check_labels(labels: Any, num_classes: int) -> None:
    """Refuse labels outside [0, num_classes)."""
    values = np.asarray(labels)
    if values.size and not (values.min() >= 0 and values.max() < num_classes):
        raise InvalidArgument(
            f"`labels` must lie in [0, {num_classes}), got values from {values.min()} to "
            f"{values.max()}."
        )


def concatenate(parts: Sequence[Certificates]) -> Certificates:
    """Certificates of the same terms, one batch after the other.

    Raises
    ------
    InvalidArgument
        For no parts, or parts whose terms differ.
    """
    if not parts:
        raise InvalidArgument("At least one batch of certificates is needed.")
    first = parts[0]
    if len(parts) > 1 and any(p.terms is None for p in parts):
        raise InvalidArgument("Certificates from a TSV state no terms and cannot be put together.")
    if any(p.terms != first.terms for p in parts):
        raise InvalidArgument("Only certificates with the same terms can be put together.")

    def join(name: str) -> Any:
        values = [getattr(p, name) for p in parts]
        return None if any(v is None for v in values) else np.concatenate(values)

    def join_tallies(name: str) -> Tally | None:
        values = [getattr(p, name) for p in parts]
        return None if any(v is None for v in values) else merge(values)

    return Certificates(
        join("index"),
        join("prediction"),
        join("radius"),
        join("p_lower"),
        join("p_upper"),
        join_tallies("selection"),
        join_tallies("estimation"),
        first.terms,
        join("labels"),
        join("seconds"),
    )
