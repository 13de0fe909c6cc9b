"""What was decided about a batch of examples: a pure function of its terms and counts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pixeldp_fast.backends.tally import Tally, merge
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.smooth.certificate import check_labels
from pixeldp_fast.smooth.decide import Statuses, as_radii, least_missed, radius_at, statuses
from pixeldp_fast.smooth.judge import Terms, selected_classes
from pixeldp_fast.stats.sequential import confidence_sequence
from pixeldp_fast.types import ABSTAIN, ArrayLike, FloatArray, IntArray, Norm


@dataclass(frozen=True, eq=False)
class Decisions:
    """What was decided about every example and asked radius.

    Parameters
    ----------
    radii : float64 [R]
        As asked, in input units.
    status : int8 [B, R]
        1 certified: the smoothed classifier gives `prediction` on all inputs nearer than the
        radius. -1 refuted: the radius that its exact probability proves is smaller. 0 undecided at
        the cap.
    prediction : int64 [B]
        The selected class; ABSTAIN = -1 where nothing is certified for it.
    radius : float64 [B]
        The anytime radius at the stop, 0 where abstained.
    p_lower, p_upper : float64 [B]
        The intersection of the intervals of all looks.
    lower_at, upper_at : int64 [B, 2]
        Hits and draws at the looks that gave these ends.
    index : int64 [B]
        The examples' addresses in the stream; in a data set, their positions.
    selection, estimation : Tally
        The draws; every example has as many estimation draws as it took.
    terms : Terms
        With stop="decided"; `n` is the cap.
    labels : int64 [B] or None

    Guarantee
        For every example apart: with probability at least 1 - alpha over the draws all of its
        statuses and its radius are right at once, whenever and for whatever reason the draws
        stopped.
    """

    radii: FloatArray
    status: Statuses
    prediction: IntArray
    radius: FloatArray
    p_lower: FloatArray
    p_upper: FloatArray
    lower_at: IntArray
    upper_at: IntArray
    index: IntArray
    selection: Tally
    estimation: Tally
    terms: Terms
    labels: IntArray | None = None

    @classmethod
    def judged(
        cls,
        terms: Terms,
        radii: FloatArray,
        index: IntArray,
        selection: Tally,
        estimation: Tally,
        lower_at: IntArray,
        upper_at: IntArray,
        labels: IntArray | None = None,
    ) -> Decisions:
        """What these terms, radii and counts decide.

        Raises
        ------
        RecordError
            For counts that no run of these terms gives.
        """
        selected = selected_classes(terms, selection)
        hits = estimation.counts[np.arange(len(selected)), selected]
        _check_counts(terms, selection, estimation, hits, (lower_at, upper_at))
        p_lower, _ = confidence_sequence(lower_at[:, 0], lower_at[:, 1], terms.alpha)
        _, p_upper = confidence_sequence(upper_at[:, 0], upper_at[:, 1], terms.alpha)
        radius = radius_at(terms)
        claims = p_lower > 0.5
        return cls(
            radii,
            statuses(radii, p_lower, p_upper, radius, least_missed(terms)),
            np.where(claims, selected, ABSTAIN).astype(np.int64),
            np.where(claims, radius(p_lower), 0.0),
            p_lower,
            p_upper,
            lower_at,
            upper_at,
            index,
            selection,
            estimation,
            terms,
            labels,
        )

    @property
    def draws(self) -> IntArray:
        """Estimation draws used, int64 [B]."""
        return self.estimation.draws

    @property
    def hits(self) -> IntArray:
        """Those that voted for the selected class, int64 [B]."""
        selected = selected_classes(self.terms, self.selection)
        found: IntArray = self.estimation.counts[np.arange(len(self)), selected]
        return found

    def __len__(self) -> int:
        return len(self.status)

    def recertify(
        self, *, radii: ArrayLike | None = None, norm: Any = None, alpha: float | None = None
    ) -> Decisions:
        """What the same draws decide about other radii, or in another norm, without the model.

        The interval holds whatever radii are asked of it, and when; only `alpha` is settled by the
        draws, which stopped because of it.

        Raises
        ------
        RecordError
            For another alpha, and for a norm whose sensitivity is not recorded.
        """
        if alpha is not None and alpha != self.terms.alpha:
            raise RecordError(
                f"These draws stopped by a rule at alpha = {self.terms.alpha:g}; they cannot be "
                f"judged at {alpha:g}. Decide again."
            )
        return Decisions.judged(
            self.terms if norm is None else replace(self.terms, norm=Norm.parse(norm)),
            self.radii if radii is None else as_radii(radii),
            self.index,
            self.selection,
            self.estimation,
            self.lower_at,
            self.upper_at,
            self.labels,
        )

    def with_labels(self, labels: ArrayLike) -> Decisions:
        """The same decisions with true classes."""
        values = np.asarray(labels)
        if values.shape != (len(self),) or values.dtype.kind not in "iu":
            raise InvalidArgument(
                f"`labels` must be integers [{len(self)}], got {values.dtype} {values.shape}."
            )
        check_labels(values, self.terms.num_classes)
        return replace(self, labels=values.astype(np.int64))

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained JSON record per example."""
        from pixeldp_fast.smooth import decision_records

        decision_records.write_jsonl(self, path)

    @classmethod
    def from_jsonl(cls, path: str | os.PathLike[str]) -> Decisions:
        """Read and judge again what `to_jsonl` wrote."""
        from pixeldp_fast.smooth import decision_records

        return decision_records.read_jsonl(path)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write one row per example with pyarrow (extra `parquet`)."""
        from pixeldp_fast.smooth import decision_records

        decision_records.write_parquet(self, path)


def concatenate(parts: Sequence[Decisions]) -> Decisions:
    """Decisions of the same terms and radii, one batch after the other; at least one.

    Raises
    ------
    InvalidArgument
        For no parts, or parts whose terms or radii differ.
    """
    if not parts:
        raise InvalidArgument("At least one batch of decisions is needed.")
    first = parts[0]
    if any(p.terms != first.terms or not np.array_equal(p.radii, first.radii) for p in parts):
        raise InvalidArgument("Only decisions of the same terms and radii can be put together.")
    labels = [p.labels for p in parts]
    return Decisions.judged(
        first.terms,
        first.radii,
        np.concatenate([p.index for p in parts]),
        merge([p.selection for p in parts]),
        merge([p.estimation for p in parts]),
        np.concatenate([p.lower_at for p in parts]),
        np.concatenate([p.upper_at for p in parts]),
        None
        if any(y is None for y in labels)
        else np.concatenate([y for y in labels if y is not None]),
    )


def _check_counts(
    terms: Terms,
    selection: Tally,
    estimation: Tally,
    hits: IntArray,
    ends: tuple[IntArray, IntArray],
) -> None:
    if terms.stop != "decided":
        raise RecordError(f"Draws with stop={terms.stop!r} are certificates, not decisions.")
    width = terms.num_classes + 1
    if selection.counts.shape[1] != width or estimation.counts.shape[1] != width:
        raise RecordError(f"A tally does not have {terms.num_classes} classes.")
    if np.any(selection.draws != terms.n0):
        raise RecordError(f"The selection tally is partial: {terms.n0} draws are needed.")
    draws = estimation.draws
    if np.any((draws < 1) | (draws > terms.n)):
        raise RecordError(f"The estimation tally has more draws than the cap, {terms.n}, or none.")
    for name, at in zip(("lower_at", "upper_at"), ends, strict=True):
        good = (at[:, 0] >= 0) & (at[:, 0] <= hits) & (at[:, 1] >= 1)
        good &= (at[:, 1] - at[:, 0] >= 0) & (at[:, 1] - at[:, 0] <= draws - hits)
        if not good.all():
            raise RecordError(f"`{name}` holds counts that are no part of the estimation draws.")
