"""What a run of intervals amounts to: the widths of every bound, in a table and in files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pixeldp_fast.files import write_whole
from pixeldp_fast.report import regression_plot
from pixeldp_fast.report.plot import available
from pixeldp_fast.report.words import confidence, grouped, program
from pixeldp_fast.smooth.regression_record import Intervals
from pixeldp_fast.smooth.regression_terms import BOUNDS, RegressionTerms
from pixeldp_fast.types import FloatArray, Norm

LABELS = {
    "lemma2": "Lemma 2",
    "mean": "mean",
    "parts": "parts",
    "distribution": "distribution",
    "quantile": "median*",
}
_ROWS = 6  # of the table, at most


@dataclass(frozen=True, eq=False)
class RegressionRun:
    """Intervals of a data set by every bound, from the same draws.

    Parameters
    ----------
    name : str
        Such as "wine (test)".
    by_bound : mapping of bound to Intervals
        Each at the alpha of its terms by itself.
    chosen : str
        The bound that was declared before the draws.
    origin : float
        What outputs are counted from.
    quantity, unit : str
        Of outputs and of radii.
    """

    name: str
    by_bound: Mapping[str, Intervals]
    chosen: str
    origin: float
    quantity: str
    unit: str

    @property
    def intervals(self) -> Intervals:
        """By the chosen bound."""
        return self.by_bound[self.chosen]

    @property
    def terms(self) -> RegressionTerms:
        """Of the chosen bound."""
        return self.intervals.terms

    @property
    def error(self) -> float | None:
        """Mean of |smoothed output - target|; None without targets."""
        targets = self.intervals.targets
        return None if targets is None else float(np.abs(self.intervals.mean - targets).mean())

    def widths(self, share: float = 50.0) -> dict[str, FloatArray]:
        """By bound, this percentile of the widths over the examples: float64 [R]."""
        return {b: np.percentile(r.width, share, axis=0) for b, r in self.by_bound.items()}

    @property
    def axis(self) -> str:
        """What the axis of radii is called."""
        norm = "infinity" if self.terms.norm is Norm.INF else str(self.terms.norm)
        return f"radius ({norm}-norm, {self.unit})"

    @property
    def settings(self) -> str:
        """The terms on one line."""
        terms = self.terms
        return (
            f"{terms.mechanism}, n = {grouped(terms.n)}, alpha = {terms.alpha:g}, output in "
            f"[{terms.low + self.origin:g}, {terms.high + self.origin:g}]"
            f"{' (clipped)' if terms.clip else ''}, {grouped(len(self.intervals))} examples"
        )

    @property
    def guarantee(self) -> str:
        """What the numbers promise, and what they leave open."""
        terms = self.terms
        what = "mean"
        if self.chosen == "quantile":
            what = "median" if terms.quantile == 0.5 else f"{terms.quantile:g}-quantile"
        return (
            f"With probability at least {confidence(terms.alpha)} over the draws (alpha = "
            f"{terms.alpha:g}: {terms.split}), for each example apart and at all radii at once, "
            f"{program(terms)}: at every input within the radius, the {what} of the output under "
            f"noise lies in its interval (bound {LABELS[self.chosen].rstrip('*')}). The other "
            "bounds' widths are for comparison: each holds at the same level by itself. Nothing is "
            "claimed about inputs chosen with knowledge of the seed."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "examples": len(self.intervals),
            "quantity": self.quantity,
            "origin": self.origin,
            "mean_absolute_error": self.error,
            "bound": self.chosen,
            "radii": list(self.terms.radii),
            "median_widths": {bound: w.tolist() for bound, w in self.widths().items()},
            "terms": self.terms.to_dict(),
            "guarantee": self.guarantee,
        }


def compared(
    intervals: Intervals, *, name: str, origin: float = 0.0, quantity: str, unit: str
) -> RegressionRun:
    """A run with every bound beside the declared one, judged from the same draws."""
    chosen = intervals.terms.bound
    by_bound = {b: intervals if b == chosen else intervals.recertify(bound=b) for b in BOUNDS}
    return RegressionRun(name, by_bound, chosen, origin, quantity, unit)


def regression_table(run: RegressionRun) -> RenderableType:
    """Median widths by radius and bound, the error, and the guarantee in words."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("radius", justify="right", no_wrap=True)
    for bound in run.by_bound:
        style = "bold cyan" if bound == run.chosen else ""
        table.add_column(LABELS[bound], justify="right", no_wrap=True, style=style)
    widths = run.widths()
    for i in _shown(len(run.terms.radii)):
        cells = (f"{w[i]:.4g}" for w in widths.values())
        table.add_row(f"{run.terms.radii[i]:g}", *cells)
    notes = [f"median width of the interval of {run.quantity}; {run.axis}"]
    if run.error is not None:
        notes.append(f"mean absolute error of the smoothed output: {run.error:.4g}")
    notes.append("* of a regressor that serves the median instead of the mean")
    return Group(
        Text(run.name, style="bold"),
        Text(run.settings, style="dim"),
        Text(),
        table,
        Text(),
        *(Text(note, style="dim") for note in notes),
        Text(),
        Text(run.guarantee, style="italic"),
    )


def _shown(radii: int) -> list[int]:
    """Which rows of the table to show: evenly spread, with the first and the last."""
    return sorted({round(float(i)) for i in np.linspace(0, radii - 1, min(radii, _ROWS))})


def write_regression(
    folder: str | os.PathLike[str], run: RegressionRun, *, with_plot: bool | None = None
) -> None:
    """Write intervals.jsonl, summary.json, widths.csv, and two plots as PNG and SVG.

    Parameters
    ----------
    with_plot : bool or None
        None: where matplotlib is installed.
    """
    with_plot = available() if with_plot is None else with_plot
    images = regression_plot.plot_files(run) if with_plot else {}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    run.intervals.to_jsonl(path / "intervals.jsonl")
    text = json.dumps(run.to_dict(), indent=2, allow_nan=False)
    write_whole(path / "summary.json", text + "\n")
    write_whole(path / "widths.csv", _csv(run))
    for name, image in images.items():
        write_whole(path / name, image)


def _csv(run: RegressionRun) -> str:
    lines = ["bound,radius,width_20,width_50,width_80"]
    quantiles = [run.widths(share) for share in (20, 50, 80)]
    for bound in run.by_bound:
        for i, radius in enumerate(run.terms.radii):
            numbers = [radius, *(float(q[bound][i]) for q in quantiles)]
            lines.append(",".join([bound, *map(repr, numbers)]))
    return "\n".join(lines) + "\n"
