"""A run as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from pixeldp_fast._version import __version__
from pixeldp_fast.report.summary import Summary
from pixeldp_fast.report.words import (
    facts,
    for_all,
    guarantee,
    norm_name,
    percent_with_error,
    radius_axis,
    settings,
    share_name,
)


def summary_markdown(summaries: Sequence[Summary], with_plot: bool) -> str:
    """The page `summary.md`: one section per run, and the plot of all."""
    parts = [_section(s) for s in summaries]
    if with_plot:
        title = share_name(summaries[0].labelled).capitalize()
        parts.append(f"![{title} against the radius](curve.svg)\n")
    parts.append(
        "Every step of the curve is in `curve.csv`: a row's share holds for radii up to and "
        f"including its own, down to the row before.\nMade by pixeldp_fast {__version__}.\n"
    )
    return "\n".join(parts).replace("\N{NO-BREAK SPACE}", " ")


def _section(summary: Summary) -> str:
    lines = [f"# {summary.name}", "", settings(summary), ""]
    title = share_name(summary.labelled) + ("" if summary.labelled else " (% of examples)")
    lines += [f"| {radius_axis(summary.terms)} | {title} |", "| ---: | ---: |"]
    rows = zip(summary.radii, summary.shares, summary.standard_errors, strict=True)
    lines += [f"| {radius:g} | {percent_with_error(s, e)} |" for radius, s, e in rows]
    lines += ["", *(f"- {what}: {value} ({note})" for what, value, note in facts(summary))]
    if summary.terms is not None:
        lines += _details(summary)
    lines += ["", guarantee(summary.terms)]
    lines += ["", *filter(None, [for_all(summary)]), ""]
    return "\n".join(lines)


def _details(summary: Summary) -> list[str]:
    terms = summary.terms
    assert terms is not None
    return [
        f"- bound: {terms.bound}, scores: {terms.scores}, sensitivity of the prefix to the "
        f"{norm_name(terms)}: {terms.sensitivity:.6g}",
        f"- seed: {terms.seed}, backend: {terms.backend} ({terms.arithmetic})",
        f"- model: {terms.model_fingerprint}",
    ]
