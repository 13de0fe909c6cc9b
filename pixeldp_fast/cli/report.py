"""`report`: tables and curves of one or more runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.certify import note_missing_tsv
from pixeldp_fast.cli.console import show, show_note
from pixeldp_fast.cli.opening import parse_radii

Runs = Annotated[
    list[Path],
    typer.Argument(help="Run folders, certificates.jsonl files, or Cohen's .tsv files."),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", help="What to call a run; once for each, in their order."),
]
Plot = Annotated[bool, typer.Option("--plot/--no-plot", help="Draw the curves (needs matplotlib).")]


def report(
    runs: Runs,
    out: Annotated[
        Path | None, typer.Option(help="Folder for summary, curve.csv, .png and .svg.")
    ] = None,
    radii: options.Radii = None,
    name: Names = None,
    plot: Plot = True,
) -> None:
    """Print certified accuracy against the radius; with --out, write curves and tables too.

    Several runs are compared: one table, one plot.
    """
    from pixeldp_fast.errors import InvalidArgument
    from pixeldp_fast.report import load_named, write_comparison, write_report
    from pixeldp_fast.report.files import compare
    from pixeldp_fast.report.plot import check_available
    from pixeldp_fast.report.table import comparison_table, run_table

    if name and len(name) != len(runs):
        raise InvalidArgument(f"--name is given {len(name)} times for {len(runs)} runs.")
    if out is not None and plot:
        check_available()
    asked = parse_radii(radii)
    if len(runs) == 1 and (runs[0] / "decisions.jsonl").is_file():
        _report_decisions(runs[0], out, name, asked)
        return
    words: list[str | None] = list(name) if name else [None] * len(runs)
    named = [load_named(path, word) for path, word in zip(runs, words, strict=True)]
    if out is not None and len(named) == 1:
        write_report(out, named[0].certificates, name=named[0].name, radii=asked, with_plot=plot)
    elif out is not None:
        write_comparison(out, named, radii=asked, with_plot=plot)
    summaries = compare(named, asked)
    show(run_table(summaries[0]) if len(summaries) == 1 else comparison_table(summaries))
    if out is not None:
        show_note(f"written to {out}")
        if len(summaries) == 1:
            note_missing_tsv(summaries[0])


def _report_decisions(
    folder: Path, out: Path | None, name: list[str] | None, radii: list[float] | None
) -> None:
    """Of a run of `certify --radii`; other radii are answered by the same draws."""
    from pixeldp_fast.jobs.decide import open_decisions
    from pixeldp_fast.report.decisions import (
        decision_table,
        summarise_decisions,
        write_decisions,
    )
    from pixeldp_fast.report.files import run_name

    decisions = open_decisions(folder)
    if radii is not None:
        decisions = decisions.recertify(radii=radii)
    title = name[0] if name else run_name(folder)
    if out is not None:
        write_decisions(out, decisions, title)
    show(decision_table(summarise_decisions(decisions, title)))
    if out is not None:
        show_note(f"written to {out}")
