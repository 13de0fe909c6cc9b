"""Intervals of a smoothed regressor: a pure function of terms and tally, and their JSON lines."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.files import write_whole
from pixeldp_fast.smooth.inputs import checked_alpha
from pixeldp_fast.smooth.regression_judge import judge_regression
from pixeldp_fast.smooth.regression_terms import RegressionTerms, check_choices, checked_radii
from pixeldp_fast.types import ArrayLike, FloatArray, IntArray, Norm

FORMAT, KIND = 1, "interval"
SAME = 1e-9  # of the range; how far two versions of a special function may move a safe number
_KEYS = {"format", "kind", "index", "target", "mean", "lower", "upper", "tally", "terms"}


@dataclass(frozen=True, eq=False)
class Intervals:
    """Certified intervals of B examples that share their terms.

    Parameters
    ----------
    index : int64 [B]
        The examples' addresses in the stream; in a data set, their positions.
    mean : float64 [B]
        The smoothed output as the draws show it (bound "quantile": its quantile); not a claim.
    lower, upper : float64 [B], or [B, R] for a list of radii
        Between them lies the smoothed output at every input within the radius.
    tally : Tally
        The draws behind the numbers.
    terms : RegressionTerms
    targets : float64 [B] or None
        True values, where known.

    Guarantee
        Per example, with probability at least 1 - alpha over the draws, for all radii at once;
        nothing is claimed for examples jointly. For inputs chosen without knowledge of the seed.
        Of several bounds the one to state is chosen before the draws; whoever takes the best of
        k afterwards asks each at alpha/k.
    """

    index: IntArray
    mean: FloatArray
    lower: FloatArray
    upper: FloatArray
    tally: Tally
    terms: RegressionTerms
    targets: FloatArray | None = None
    one_radius: bool = False

    @classmethod
    def judged(
        cls,
        terms: RegressionTerms,
        index: IntArray,
        tally: Tally,
        targets: FloatArray | None = None,
        *,
        one_radius: bool = False,
    ) -> Intervals:
        """The intervals that these terms and this tally make."""
        verdict = judge_regression(terms, tally)
        lower, upper = verdict.lower, verdict.upper
        if one_radius:
            lower, upper = lower[:, 0], upper[:, 0]
        return cls(index, verdict.mean, lower, upper, tally, terms, targets, one_radius)

    @property
    def radii(self) -> FloatArray:
        """float64 [R], in input units and the norm of the terms."""
        return np.array(self.terms.radii)

    @property
    def width(self) -> FloatArray:
        """upper - lower, of the shape of both."""
        return self.upper - self.lower

    def __len__(self) -> int:
        return len(self.index)

    def recertify(
        self,
        *,
        bound: str | None = None,
        alpha: float | None = None,
        radius: ArrayLike | None = None,
        norm: Any = None,
        mean_bound: str | None = None,
    ) -> Intervals:
        """The same draws judged with another bound, level, radius or norm, without the model.

        Guarantee
            As for a first result, provided that all of these were chosen before looking at the
            draws.

        Raises
        ------
        RecordError
            When there is no sensitivity for the norm.
        """
        terms = self.terms
        asked = replace(
            terms,
            bound=terms.bound if bound is None else bound,
            alpha=terms.alpha if alpha is None else checked_alpha(alpha),
            radii=terms.radii if radius is None else checked_radii(radius),
            norm=terms.norm if norm is None else Norm.parse(norm),
            mean_bound=terms.mean_bound if mean_bound is None else mean_bound,
        )
        check_choices(asked.bound, asked.mean_bound, asked.quantile, asked.n)
        one = self.one_radius if radius is None else np.ndim(radius) == 0
        return Intervals.judged(asked, self.index, self.tally, self.targets, one_radius=one)

    def with_targets(self, targets: ArrayLike) -> Intervals:
        """The same intervals with true values."""
        values = np.asarray(targets, dtype=np.float64)
        if values.shape != (len(self),) or not np.isfinite(values).all():
            raise InvalidArgument(
                f"`targets` must be {len(self)} finite numbers, got shape {values.shape}."
            )
        return replace(self, targets=values)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained JSON record per example; equal intervals give equal bytes."""
        write_whole(path, "".join(line + "\n" for line in self._lines()))

    def _lines(self) -> list[str]:
        terms = {**self.terms.to_dict(), "one_radius": self.one_radius}
        lower, upper = (v.reshape(len(self), -1) for v in (self.lower, self.upper))
        return [
            json.dumps(
                {
                    "format": FORMAT,
                    "kind": KIND,
                    "index": int(self.index[i]),
                    "target": None if self.targets is None else float(self.targets[i]),
                    "mean": float(self.mean[i]),
                    "lower": lower[i].tolist(),
                    "upper": upper[i].tolist(),
                    "tally": _tally_record(self.tally, i),
                    "terms": terms,
                },
                separators=(",", ":"),
            )
            for i in range(len(self))
        ]

    @classmethod
    def from_jsonl(cls, path: str | os.PathLike[str]) -> Intervals:
        """Read what `to_jsonl` wrote, and judge it again.

        Guarantee
            The numbers returned are those that the tallies give here and now; the stored ones only
            have to agree with them to 1e-9 of the range.

        Raises
        ------
        RecordError
            With the line and field, for what is truncated, edited or of another version.
        """
        return _read(Path(path))


def _tally_record(tally: Tally, i: int) -> dict[str, Any]:
    """Counts as pairs (column, draws): most cells are empty."""
    assert tally.sums is not None
    assert tally.squares is not None
    columns = np.flatnonzero(tally.counts[i])
    return {
        "counts": [[int(c), int(tally.counts[i, c])] for c in columns],
        "sums": tally.sums[i].tolist(),
        "squares": tally.squares[i].tolist(),
    }


def _read(path: Path) -> Intervals:
    records = [
        (f"{path}, line {i}", _parsed(f"{path}, line {i}", line))
        for i, line in enumerate(path.read_text().split("\n"), 1)
        if line.strip()
    ]
    if not records:
        raise RecordError(f"{path} holds no intervals.")
    first_where, first = records[0]
    for where, record in records:
        if record["terms"] != first["terms"]:
            raise RecordError(f"{where}: different terms than before; split the file by terms.")
    try:
        plain = dict(first["terms"])
        one_radius = plain.pop("one_radius")
        if type(one_radius) is not bool:
            raise ValueError("`one_radius` must be true or false")
        terms = RegressionTerms.from_dict(plain)
    except (RecordError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{first_where}: `terms`: {error}") from error
    columns = terms.bins + 3
    rows = [_tally_row(where, record["tally"], columns) for where, record in records]
    counts, sums, squares = (np.array(part, dtype=np.int64) for part in zip(*rows, strict=True))
    targets = [record["target"] for _, record in records]
    try:
        found = Intervals.judged(
            terms,
            np.array([record["index"] for _, record in records], dtype=np.int64),
            Tally(counts, sums, squares),
            None if None in targets else np.array(targets, dtype=np.float64),
            one_radius=one_radius,
        )
    except (RecordError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"{path} is not a file of intervals: {error}") from error
    _check_numbers(records, found)
    return found


def _parsed(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: not JSON (truncated?): {error}") from error
    if not isinstance(record, dict) or (record.get("format"), record.get("kind")) != (FORMAT, KIND):
        raise RecordError(f"{where}: not an interval of format {FORMAT}.")
    if record.keys() != _KEYS:
        names = ", ".join(sorted(record.keys() ^ _KEYS))
        raise RecordError(f"{where}: missing or unknown fields: {names}.")
    if type(record["index"]) is not int or record["index"] < 0:
        raise RecordError(f"{where}: `index` must be an integer of at least 0.")
    return record


def _tally_row(where: str, tally: Any, columns: int) -> tuple[list[int], list[int], list[int]]:
    """Counts [columns], sums [2] and squares [2] of one record."""
    try:
        pairs, sums, squares = tally["counts"], tally["sums"], tally["squares"]
        numbers = [n for pair in pairs for n in pair] + sums + squares
        good = all(type(n) is int and 0 <= n < 2**63 for n in numbers)
        good &= len(tally) == 3 and len(sums) == len(squares) == 2
        counts = [0] * columns
        for column, draws in pairs:
            good &= draws > 0 and counts[column] == 0
            counts[column] = draws
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RecordError(f"{where}: `tally` is not one of {columns} columns: {error!r}") from error
    if not good or [c for c, _ in pairs] != sorted(c for c, _ in pairs):
        raise RecordError(f"{where}: `tally` is not one of {columns} columns.")
    return counts, sums, squares


def _check_numbers(records: list[tuple[str, dict[str, Any]]], found: Intervals) -> None:
    """Refuse a stored number that is not what its tally gives."""
    allowed = SAME * (found.terms.high - found.terms.low)
    for i, (where, record) in enumerate(records):
        for name in ("mean", "lower", "upper"):
            here = np.atleast_1d(getattr(found, name)[i])
            stored = np.atleast_1d(record[name])
            same = stored.shape == here.shape and stored.dtype.kind in "if"
            if not same or not np.all(np.abs(stored - here) <= allowed):
                raise RecordError(
                    f"{where}: `{name}` is {record[name]}, but the tally gives {here.tolist()}: "
                    "the record was edited, or made by another version."
                )
        if record["target"] is not None and not (
            type(record["target"]) is float and math.isfinite(record["target"])
        ):
            raise RecordError(f"{where}: `target` must be a number or null.")
