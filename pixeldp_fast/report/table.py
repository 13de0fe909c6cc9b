"""Runs as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pixeldp_fast.report.summary import Summary
from pixeldp_fast.report.words import (
    facts,
    for_all,
    guarantee,
    percent_with_error,
    radius_axis,
    settings,
    share_name,
)

_BAR_WIDTH = 26  # the table then fits into 80 columns


def run_table(summary: Summary) -> RenderableType:
    """One run: the share at its radii, its other numbers, and its guarantee in words."""
    return Group(
        Text(summary.name, style="bold"),
        Text(settings(summary), style="dim"),
        Text(),
        _shares(summary),
        Text(),
        _facts(summary),
        Text(),
        Text(guarantee(summary.terms), style="italic"),
        *(Text(line, style="italic") for line in filter(None, [for_all(summary)])),
    )


def comparison_table(summaries: Sequence[Summary]) -> RenderableType:
    """Several runs side by side, at the radii of the first one."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column(_common_axis(summaries), justify="right")
    for summary in summaries:
        table.add_column(summary.name, justify="right", overflow="fold")
    for i, radius in enumerate(summaries[0].radii):
        at_radius = [(s.shares[i], s.standard_errors[i]) for s in summaries]
        cells = (percent_with_error(share, error) for share, error in at_radius)
        table.add_row(f"{radius:g}", *cells)
    table.add_row()
    for rows in zip(*(_padded_facts(s) for s in summaries), strict=True):
        table.add_row(Text(rows[0][0], style="dim"), *(value for _, value in rows))
    notes = [Text(f"{s.name}: {settings(s)}", style="dim") for s in summaries]
    promises = dict.fromkeys(guarantee(s.terms) for s in summaries)
    return Group(
        table, Text(), *notes, Text(), *(Text(promise, style="italic") for promise in promises)
    )


def _shares(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column(radius_axis(summary.terms), justify="right", no_wrap=True)
    table.add_column(share_name(summary.labelled), justify="right", no_wrap=True)
    table.add_column("", width=_BAR_WIDTH)
    rows = zip(summary.radii, summary.shares, summary.standard_errors, strict=True)
    for radius, share, error in rows:
        bar = ProgressBar(
            total=1.0,
            completed=float(share),
            width=_BAR_WIDTH,
            complete_style="cyan",
            finished_style="cyan",
        )
        table.add_row(f"{radius:g}", percent_with_error(share, error), bar)
    return table


def _facts(summary: Summary) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for row in facts(summary):
        table.add_row(*row)
    return Padding(table, 0)


def _padded_facts(summary: Summary) -> list[tuple[str, str]]:
    """Name and value of the facts; the one that a TSV lacks as a dash, so that rows line up."""
    rows = [(name, value) for name, value, _ in facts(summary)]
    if summary.largest_radius is None:
        rows.append(("largest radius possible", "-"))
    return rows


def _common_axis(summaries: Sequence[Summary]) -> str:
    axes = {radius_axis(s.terms) for s in summaries}
    return axes.pop() if len(axes) == 1 else radius_axis(None)
