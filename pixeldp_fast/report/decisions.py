"""What a run of decisions amounts to: answers per radius, and draws against the cap."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pixeldp_fast.files import write_whole
from pixeldp_fast.report.words import confidence, grouped, norm_name, percent, program, radius_axis
from pixeldp_fast.smooth.decide import CERTIFIED, REFUTED, UNDECIDED
from pixeldp_fast.smooth.decisions import Decisions
from pixeldp_fast.smooth.judge import Terms

_PARTS = (1000, 100, 10, 2, 1)  # of the cap, at which the draws are counted


@dataclass(frozen=True)
class Answers:
    """How many examples got which answer at one radius; `right` None without labels."""

    radius: float
    certified: int
    refuted: int
    undecided: int
    right: int | None


@dataclass(frozen=True, eq=False)
class DecisionSummary:
    """What is told about a run of decisions.

    Parameters
    ----------
    name : str
    terms : Terms
    examples : int
    answers : list of Answers
        One per asked radius.
    mean, median, most : float
        Estimation draws per example.
    within : list of (draws, examples)
        How many examples took at most so many draws.
    """

    name: str
    terms: Terms
    examples: int
    answers: list[Answers]
    mean: float
    median: float
    most: float
    within: list[tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "examples": self.examples,
            "radii": [vars(one) for one in self.answers],
            "draws": {"mean": self.mean, "median": self.median, "most": self.most},
            "examples_within_draws": [list(pair) for pair in self.within],
            "terms": self.terms.to_dict(),
            "guarantee": decided_guarantee(self.terms),
        }


def summarise_decisions(decisions: Decisions, name: str) -> DecisionSummary:
    """Sum up one run."""
    draws, cap, labels = decisions.draws, decisions.terms.n, decisions.labels
    answers = []
    for r, radius in enumerate(decisions.radii):
        status = decisions.status[:, r]
        certified, refuted, undecided = (
            int(np.sum(status == one)) for one in (CERTIFIED, REFUTED, UNDECIDED)
        )
        right = None
        if labels is not None:
            right = int(np.sum((status == CERTIFIED) & (decisions.prediction == labels)))
        answers.append(Answers(float(radius), certified, refuted, undecided, right))
    within = [(cap // part, int(np.sum(draws <= cap // part))) for part in _PARTS if cap // part]
    return DecisionSummary(
        name,
        decisions.terms,
        len(decisions),
        answers,
        float(draws.mean()),
        float(np.median(draws)),
        float(draws.max()),
        within,
    )


def decided_guarantee(terms: Terms) -> str:
    """What the answers promise."""
    return (
        f"With probability at least {confidence(terms.alpha)} over the draws (alpha = "
        f"{terms.alpha:g}: {terms.split}), for each example apart, {program(terms)}: all of "
        f"its answers are right at once, whenever its draws stopped. Certified: nearer than the "
        f"radius, in the {norm_name(terms)}, the smoothed classifier gives the same class. "
        "Refuted: its exact probability proves no such radius. Nothing is claimed about inputs "
        "chosen with knowledge of the seed."
    )


def decided_settings(summary: DecisionSummary) -> str:
    """The terms on one line, with the number of examples."""
    terms = summary.terms
    return (
        f"{terms.mechanism}, n0 = {grouped(terms.n0)}, at most {grouped(terms.n)} draws, alpha = "
        f"{terms.alpha:g}, {grouped(summary.examples)} examples"
    )


def decided_draws(summary: DecisionSummary) -> list[str]:
    """The draws against the cap, in sentences."""
    cap = summary.terms.n
    fewer = cap / summary.mean
    shares = ", ".join(
        f"{percent(count / summary.examples)} took at most {grouped(draws)}"
        for draws, count in summary.within[:-1]
    )
    return [
        f"draws per example: {grouped(round(summary.mean))} on average, "
        f"{grouped(round(summary.median))} in the median; {fewer:.1f} times fewer than the cap",
        f"of the examples {shares}" if shares else f"cap: {grouped(cap)} draws",
    ]


def _rows(summary: DecisionSummary) -> tuple[list[str], list[list[str]]]:
    labelled = summary.answers[0].right is not None
    header = [radius_axis(summary.terms), *(["certified, right"] if labelled else [])]
    rows = []
    for one in summary.answers:
        counts = [*([one.right] if one.right is not None else [])]
        counts += [one.certified, one.refuted, one.undecided]
        rows.append([f"{one.radius:g}", *(percent(c / summary.examples) for c in counts)])
    return [*header, "certified", "refuted", "undecided"], rows


def decision_table(summary: DecisionSummary) -> RenderableType:
    """The answers per radius, the draws, and the guarantee in words."""
    header, rows = _rows(summary)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for title in header:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return Group(
        Text(summary.name, style="bold"),
        Text(decided_settings(summary), style="dim"),
        Text(),
        table,
        Text(),
        *(Text(line) for line in decided_draws(summary)),
        Text(),
        Text(decided_guarantee(summary.terms), style="italic"),
    )


def decision_markdown(summary: DecisionSummary) -> str:
    """The page `summary.md`."""
    header, rows = _rows(summary)
    lines = [f"# {summary.name}", "", decided_settings(summary), ""]
    lines += [f"| {' | '.join(header)} |", "|" + " ---: |" * len(header)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"- {line}" for line in decided_draws(summary))]
    lines += ["", decided_guarantee(summary.terms), ""]
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def write_decisions(
    folder: str | os.PathLike[str], decisions: Decisions, name: str
) -> DecisionSummary:
    """Write summary.json, summary.md and, where pyarrow is, decisions.parquet."""
    import importlib.util

    summary, path = summarise_decisions(decisions, name), Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / "summary.json", json.dumps(summary.to_dict(), indent=2) + "\n")
    write_whole(path / "summary.md", decision_markdown(summary))
    if importlib.util.find_spec("pyarrow") is not None:
        decisions.to_parquet(path / "decisions.parquet")
    return summary
