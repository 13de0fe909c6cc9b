"""All rows of a file: their draws counted, then each one's chain of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pixeldp_fast.verify.chain import Chain
from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.decided import DecisionChain
from pixeldp_fast.verify.findings import Check
from pixeldp_fast.verify.means import GRID
from pixeldp_fast.verify.reading import Records, Row

Report = Callable[[int, int], None]


def check_rows(records: Records, report: Report) -> list[Check]:
    """Check every row; `report` gets the rows done and in all."""
    claim, rows = records.claim, records.rows
    counts = Check("counts", "the draws are as many as declared, and the sums fit them")
    chain = DecisionChain(claim) if records.decided else Chain(claim)
    for done, row in enumerate(rows):
        report(done, len(rows))
        chain.check(row, _check_counts(counts, claim, row))
    report(len(rows), len(rows))
    _blame_the_terms(counts, claim, rows)
    return [_examples(claim, rows), counts, *chain.checks()]


def _examples(claim: Claim, rows: list[Row]) -> Check:
    check = Check("examples", "every index once, labels among the classes")
    seen: dict[int, str] = {}
    for row in rows:
        check.examined += 1
        index, label = row["index"], row["label"]
        if index in seen:
            check.add(row.where, "index", f"is that of {seen[index]}, too: they share their draws")
        seen[index] = row.where
        if label is not None and not 0 <= label < claim["num_classes"]:
            check.add(row.where, "label", f"is {label}, not among {claim['num_classes']} classes")
    return check


def _check_counts(check: Check, claim: Claim, row: Row) -> bool:
    """Whether both tallies can be what n0 and n draws gave."""
    before = len(check.disagreements)
    check.examined += 1
    for name, _, ends in _ends(claim):
        tally = row[name]
        found = sum(tally["counts"])
        if found not in ends:
            check.add(row.where, f"{name}.counts", f"holds {found} draws, not {_words(ends)}")
        elif "sums" in tally:
            _check_sums(check, row.where, name, tally, found)
    return len(check.disagreements) == before


def _ends(claim: Claim) -> list[tuple[str, str, Sequence[int]]]:
    """Every tally, the term that says how many draws it holds, and the numbers it may hold."""
    decided = claim["stop"] == "decided"
    ends: Sequence[int] = range(1, claim["n"] + 1) if decided else list(claim.looks)
    return [("selection", "n0", [claim["n0"]]), ("estimation", "n", ends)]


def _words(ends: Sequence[int]) -> str:
    return f"{ends[0]} to {ends[-1]}" if isinstance(ends, range) else " or ".join(map(str, ends))


def _check_sums(check: Check, where: str, name: str, tally: dict[str, Any], n: int) -> None:
    """Sums that n draws can have: scores of at most 1 in all per draw, squares that fit them."""
    if sum(tally["sums"]) > n * GRID:
        check.add(where, f"{name}.sums", f"add up to more than {n} draws can give")
    for k, (total, square) in enumerate(zip(tally["sums"], tally["squares"], strict=True)):
        if not total * total <= n * square <= n * total * GRID:
            check.add(where, f"{name}.squares", f"{square} of class {k} do not fit the sum {total}")


def _blame_the_terms(check: Check, claim: Claim, rows: list[Row]) -> None:
    """Where all rows hold the same wrong number of draws, n0 or n was edited, not every row."""
    for name, term, ends in _ends(claim):
        found = {sum(row[name]["counts"]) for row in rows}
        if len(rows) > 1 and len(found) == 1 and found.isdisjoint(ends):
            kept = [d for d in check.disagreements if d.field != f"{name}.counts"]
            check.disagreements[:] = kept
            words = f"is {claim[term]}, but every example holds {found.pop()} draws"
            check.add("every example", f"terms.{term}", words)
