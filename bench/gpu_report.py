"""The table of the GPU measurements, from the rows of the ledger."""

from __future__ import annotations

from bench.gpu_cases import CASES
from bench.gpu_unit import COHEN, COMPLETE, DTYPES, OURS
from bench.markdown import Cells, markdown, spread

HEADER = [
    "network",
    "arithmetic",
    "pixeldp_fast, million draws/s",
    "over the strongest PyTorch",
    "over Cohen's loop",
    "of the serial roofline",
]


def gpu_table(rows: list[Cells]) -> str:
    """Ours beside the strongest PyTorch of the same arithmetic: a line per unit, of its last
    complete run. A run that lacks a contender has a baseline that may be weak, and is not shown.
    """
    lines = []
    for case in CASES:
        for dtype in DTYPES:
            found = _newest(rows, f"{case.name}, {dtype}, ")
            line = _line(found)
            if line is not None:
                lines.append([case.title, dtype, *line])
    return markdown(HEADER, lines)


def _newest(rows: list[Cells], label: str) -> dict[tuple[str, str], Cells]:
    """A unit's rows of its last complete run, by contender and metric."""
    own = [row for row in rows if row["contender"].startswith(label)]
    complete = (row["time"] for row in own if row["metric"] == COMPLETE and float(row["value"]))
    last = max(complete, default="")
    return {
        (row["contender"].removeprefix(label), row["metric"]): row
        for row in own
        if row["time"] == last
    }


def _line(found: dict[tuple[str, str], Cells]) -> list[str] | None:
    rate, best = found.get((OURS, "rate")), found.get((OURS, "over the strongest PyTorch"))
    if rate is None or best is None:
        return None
    cohen = found.get((COHEN, f"{OURS} over it"))
    name = best["note"].split(";")[0]
    return [
        f"{float(rate['value']) / 1e6:.4g}",
        f"{spread(best, 2)} ({name})",
        "" if cohen is None else spread(cohen, 2),
        f"{float(found[OURS, 'share of the serial roofline']['value']):.0%}",
    ]
