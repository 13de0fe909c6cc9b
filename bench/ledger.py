"""The ledger: one CSV per hardware, rows only ever appended."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bench import hardware

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One measured number.

    Parameters
    ----------
    case, contender, metric : str
        What was measured, of what, and as what.
    value, low, high : float
        Median with the 20th and 80th percentile of the repeats (equal where there is one); a share
        of examples with one standard error to either side.
    unit : str
    note : str
        Settings that the case's name does not say.
    """

    case: str
    contender: str
    metric: str
    value: float
    low: float
    high: float
    unit: str
    note: str = ""


COLUMNS = ["time", "commit", *(f.name for f in fields(Row)), "versions"]


def stamp() -> dict[str, str]:
    """Time, commit and versions; taken before measuring, since a checkout can move meanwhile."""
    return {
        "time": hardware.now(),
        "commit": hardware.commit(),
        "versions": hardware.versions(),
    }


def append(rows: Iterable[Row], stamped: dict[str, str], slug: str | None = None) -> Path:
    """Add rows to the file of the hardware `slug`, by default this processor's; return its path."""
    path = RESULTS / f"{slug or hardware.slug()}.csv"
    path.parent.mkdir(exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        for row in rows:
            writer.writerow(stamped | asdict(row))
    return path


def read() -> list[dict[str, str]]:
    """All rows of all hardware, oldest first, each with its file's name as `hardware`."""
    rows = []
    for path in sorted(RESULTS.glob("*.csv")):
        with path.open(newline="") as file:
            rows += [row | {"hardware": path.stem} for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: row["time"])


def latest(case: str) -> list[dict[str, str]]:
    """The newest row of every (hardware, contender, metric) of a case."""
    newest: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in read():
        if row["case"] == case:
            newest[row["hardware"], row["contender"], row["metric"]] = row
    return list(newest.values())
