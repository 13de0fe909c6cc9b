"""Plots of intervals: prediction and interval against the radius, and all bounds' widths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pixeldp_fast.report.plot import check_available
from pixeldp_fast.report.style import COLOURS, FAINT, INK, own_settings, saved

if TYPE_CHECKING:
    from pixeldp_fast.report.regression import RegressionRun
    from pixeldp_fast.types import FloatArray

# The same colour for a bound in every plot, whichever is the chosen one.
_COLOUR = dict(
    zip(
        ("parts", "lemma2", "distribution", "mean", "quantile"),
        (COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[5]),
        strict=True,
    )
)
_SHOWN = (10, 50, 90)  # percentiles of the predictions whose examples are drawn
_LEAST_GAP = 0.055  # of the axis between two labels at the end of lines


def plot_files(run: RegressionRun) -> dict[str, bytes]:
    """Both plots by file name: intervals.png, intervals.svg, widths.png, widths.svg.

    Guarantee
        Between two radii an interval is drawn as that of the larger one, which holds there.
    """
    check_available()
    with own_settings():
        figures = {"intervals": _intervals(run), "widths": _widths(run)}
        return {
            f"{name}.{kind}": data
            for name, figure in figures.items()
            for kind, data in saved(figure).items()
        }


def _figure(columns: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2 if columns == 1 else 9.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, sharey=True, squeeze=False)[0]


def _intervals(run: RegressionRun) -> Any:
    rows = _examples(run.intervals.mean)
    figure, panels = _figure(len(rows))
    for axes, row in zip(panels, rows, strict=True):
        _draw_example(axes, run, row)
    panels[0].set_ylabel(run.quantity)
    figure.suptitle(
        f"{run.name}: smoothed prediction, and where attacks can move it",
        x=0.01,
        ha="left",
        fontweight="bold",
        fontsize=12,
    )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9.5, frameon=False
    )
    panels[len(panels) // 2].set_xlabel(run.axis)
    figure.get_layout_engine().set(wspace=0.08)
    return figure


def _examples(mean: FloatArray) -> list[int]:
    """The examples with a low, a middle and a high prediction."""
    order = np.argsort(mean, kind="stable")
    places = [round(share / 100 * (len(mean) - 1)) for share in _SHOWN]
    return list(dict.fromkeys(int(order[place]) for place in places))


def _draw_example(axes: Any, run: RegressionRun, row: int) -> None:
    chosen, radii = run.intervals, np.array(run.terms.radii)
    order = np.argsort(radii)
    x = radii[order]
    style = {"step": "pre", "linewidth": 0, "zorder": 1}
    others = [b for b in ("lemma2", "distribution") if b != run.chosen]
    label = run.chosen.replace("lemma2", "Lemma 2")
    axes.fill_between(
        x,
        chosen.lower[row][order] + run.origin,
        chosen.upper[row][order] + run.origin,
        color=_COLOUR[run.chosen],
        alpha=0.25,
        label=f"certified interval ({label})",
        **style,
    )
    for bound in others:
        line = {"where": "pre", "color": _COLOUR[bound], "linewidth": 1.1, "zorder": 2}
        name = f"by {bound}".replace("lemma2", "Lemma 2")
        axes.step(x, run.by_bound[bound].lower[row][order] + run.origin, label=name, **line)
        axes.step(x, run.by_bound[bound].upper[row][order] + run.origin, **line)
    prediction = chosen.mean[row] + run.origin
    axes.plot(
        x, np.full(len(x), prediction), color=INK, linewidth=1.4, label="prediction", zorder=3
    )
    if chosen.targets is not None:
        target = chosen.targets[row] + run.origin
        axes.axhline(
            target, color=FAINT, linewidth=0.9, dashes=(4, 3), label="true value", zorder=2
        )
    axes.set_xlim(0, x[-1] or 1.0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(f"example {int(chosen.index[row])}", loc="left", fontsize=10)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def _widths(run: RegressionRun) -> Any:
    figure, (axes,) = _figure(1)
    order = np.argsort(run.terms.radii)
    x = np.array(run.terms.radii)[order]
    low, middle, high = (run.widths(share) for share in (20, 50, 80))
    for bound, width in middle.items():
        style = {"color": _COLOUR[bound], "zorder": 4 if bound == run.chosen else 3}
        axes.fill_between(
            x, low[bound][order], high[bound][order], step="pre", alpha=0.13, linewidth=0, **style
        )
        axes.step(
            x, width[order], where="pre", linewidth=2.2 if bound == run.chosen else 1.5, **style
        )
    whole = run.terms.high - run.terms.low
    top = 1.04 * max(float(np.max(w)) for w in high.values())
    if whole <= top:
        axes.axhline(whole, color=FAINT, linewidth=0.9, dashes=(4, 3))
        axes.text(0.01 * x[-1], whole, "the whole range", va="bottom", fontsize=9, color=FAINT)
        top = max(top, 1.06 * whole)
    axes.set_xlim(0, x[-1] or 1.0)
    axes.set_ylim(0, top)
    _label_ends(axes, {bound: float(w[order][-1]) for bound, w in middle.items()}, top)
    axes.set_xlabel(run.axis)
    axes.set_ylabel(f"width of the interval of {run.quantity}")
    axes.set_title(f"{run.name}: what each bound proves", loc="left", fontweight="bold", pad=38)
    subtitle = axes.text(
        0,
        1.03,
        f"lines: median of the examples; bands: 20 to 80 %\n{run.settings}",
        transform=axes.transAxes,
        fontsize=8.5,
        color=FAINT,
    )
    subtitle.set_in_layout(False)  # it may reach over the names beside the lines
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    return figure


def _label_ends(axes: Any, ends: dict[str, float], top: float) -> None:
    """The bounds' names beside the right ends of their lines, moved apart where they would meet."""
    names = {"lemma2": "Lemma 2 (paper)", "quantile": "median smoothing"}
    place = -1.0
    for bound in sorted(ends, key=lambda b: ends[b]):
        place = max(ends[bound] / top, place + _LEAST_GAP)
        axes.text(
            1.015,
            place,
            names.get(bound, bound),
            transform=axes.transAxes,
            va="center",
            fontsize=9.5,
            color=_COLOUR[bound],
        )
