"""Pieces of the README's tables."""

from __future__ import annotations

Cells = dict[str, str]  # one row of the ledger


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def spread(row: Cells, digits: int) -> str:
    """A row's value with its low and high."""
    value, low, high = (f"{float(row[k]):.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
