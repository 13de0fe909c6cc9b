"""The verification of a regressor's intervals: read apart, derived again by their definitions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pixeldp_fast.errors import RecordError
from pixeldp_fast.verify.arithmetic import exactly, mp
from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.findings import Check, Verification
from pixeldp_fast.verify.lattice import check_lattice
from pixeldp_fast.verify.reading import parsed
from pixeldp_fast.verify.regression_claim import IntervalClaim, read_interval_claim
from pixeldp_fast.verify.regression_ends import Ends, Kept

FILE = "intervals.jsonl"
NEAR = 1e-8  # of the range; how far outside of the exact end a stored one may be
_FIELDS = {"index", "target", "mean", "lower", "upper", "tally"}

Record = tuple[str, dict[str, Any]]  # the example and its place in the file, and what is stored


def intervals_file(path: str | os.PathLike[str]) -> Path | None:
    """The file of intervals that a path names, itself or as a run's folder; None for any other."""
    place = Path(path)
    if place.is_dir():
        return place / FILE if (place / FILE).is_file() else None
    try:
        with place.open("rb") as file:
            return place if b'"kind":"interval"' in file.read(200) else None
    except OSError:
        return None


def verify_intervals(
    path: Path, report: Callable[[int, int], None] = lambda done, total: None
) -> Verification:
    """Derive both ends of every interval again from the stored draws, in 40 digits.

    Guarantee
        Where nothing disagrees, every end is on the safe side of the exact one, which the stored
        draws and terms give by definition, and within 1e-8 of the range.

    Raises
    ------
    RecordError
        When the file cannot be read, by line and field.
    MissingExtra
        Without mpmath.
    """
    mp()
    claim, records = _read(path)
    counts = Check("counts", "as many as declared, within the range unless clipped, fitting sums")
    ends = Check("ends", f"the definitions of bound {claim.bound!r}, on the safe side")
    middle = Check("mean", "the draws' own")
    judge = Ends(claim)
    for done, (where, record) in enumerate(records):
        report(done, len(records))
        kept = _kept(counts, claim, where, record["tally"])
        if kept is None:
            continue
        _check_middle(middle, judge, kept, where, record)
        for r in range(len(claim.radii)):
            _check_ends(ends, judge, kept, r, where, record)
    report(len(records), len(records))
    examples = Check("examples", "every index once", len(records))
    seen: set[int] = set()
    for where, record in records:
        if record["index"] in seen:
            examples.add(where, "index", "is that of another example, too: they share their draws")
        seen.add(record["index"])
    terms = Check("terms", "every one known here", len(claim.terms))
    program = check_lattice(cast(Claim, claim))
    checks = [terms, program, examples, counts, middle, ends]
    return Verification(str(path), len(records), claim.terms, checks)


def _read(path: Path) -> tuple[IntervalClaim, list[Record]]:
    records: list[Record] = []
    terms: Any = None
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        record = parsed(place, line)
        if not isinstance(record, dict):
            raise RecordError(f"{place}: not a record.")
        if (record.pop("format", None), record.pop("kind", None)) != (1, "interval"):
            raise RecordError(f"{place}: not an interval of format 1, the one known here.")
        own = record.pop("terms", None)
        if records and own != terms:
            raise RecordError(f"{place}: `terms` differ from those of the lines before.")
        if record.keys() != _FIELDS:
            names = ", ".join(sorted(record.keys() ^ _FIELDS))
            raise RecordError(f"{place}: missing or unknown fields: {names}.")
        terms = own
        records.append((f"example {record['index']} (line {number})", record))
    if not records:
        raise RecordError(f"{path} holds no intervals.")
    claim = read_interval_claim(terms)
    for where, record in records:
        _check_form(f"{path}, {where}", record, len(claim.radii))
    return claim, records


def _check_form(where: str, record: dict[str, Any], radii: int) -> None:
    if type(record["index"]) is not int or record["index"] < 0:
        raise RecordError(f"{where}: `index` must be an integer of at least 0.")
    for name in ("lower", "upper"):
        row = record[name]
        good = isinstance(row, list) and len(row) == radii and all(type(v) is float for v in row)
        if not good:
            raise RecordError(f"{where}: `{name}` must be {radii} numbers.")
    for name in ("mean", "target"):
        if type(record[name]) is not float and not (name == "target" and record[name] is None):
            raise RecordError(f"{where}: `{name}` must be a number.")


def _kept(check: Check, claim: IntervalClaim, where: str, tally: Any) -> Kept | None:
    """What is kept of one example's draws, or None and a disagreement."""
    check.examined += 1
    try:
        counts = [0] * (claim.bins + 3)
        for column, draws in tally["counts"]:
            counts[column] += draws
        kept = Kept(claim, counts, tuple(tally["sums"]), tuple(tally["squares"]))
        whole = all(type(v) is int and v >= 0 for v in (*counts, *kept.sums, *kept.squares))
        if not (whole and len(kept.sums) == len(kept.squares) == 2 and len(tally) == 3):
            raise ValueError("not counts, two sums and two squares of at least 0")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RecordError(f"{where}: `tally`: {error}") from error
    for name, words in kept.faults():
        check.add(where, name, words)
        return None
    return kept


def _check_middle(
    check: Check, judge: Ends, kept: Kept, where: str, record: dict[str, Any]
) -> None:
    check.examined += 1
    claim, exact = judge.claim, judge.middle(kept)
    if abs(exactly(record["mean"]) - exact) > NEAR * (claim.high - claim.low):
        check.add(where, "mean", f"is {record['mean']!r}, the draws' is {float(exact)!r}")


def _check_ends(
    check: Check, judge: Ends, kept: Kept, r: int, where: str, record: dict[str, Any]
) -> None:
    """lower in [exact - near, exact] and upper in [exact, exact + near]."""
    claim = judge.claim
    near, radius = NEAR * (claim.high - claim.low), claim.radii[r]
    for sign, name, exact in zip((1, -1), ("lower", "upper"), judge.at(kept, r), strict=True):
        check.examined += 1
        stored = record[name][r]
        inside = sign * (exact[0] - exactly(stored))  # at least 0 on the safe side
        far = sign * (exact[1] - exactly(stored))
        if inside < 0:
            check.add(where, name, f"at radius {radius:g} is {stored!r}, not proved: the exact end "
                      f"is {float(exact[0])!r}")  # fmt: skip
        elif far > near:
            check.add(where, name, f"at radius {radius:g} is {stored!r}, far outside of the exact "
                      f"end {float(exact[1])!r}")  # fmt: skip
