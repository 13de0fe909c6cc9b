"""The certified-accuracy plot, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pixeldp_fast.errors import InvalidArgument, MissingExtra
from pixeldp_fast.report.style import COLOURS, DASHES, FAINT, own_settings, saved
from pixeldp_fast.report.summary import Summary
from pixeldp_fast.report.words import grouped, radius_axis, settings, share_name


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def check_available() -> None:
    """Raise `MissingExtra` where matplotlib is not installed."""
    if not available():
        raise MissingExtra("A plot needs matplotlib: pip install 'pixeldp_fast[plot]'.")


def plot_files(summaries: Sequence[Summary]) -> dict[str, bytes]:
    """The curves of one or more runs, by format ("png", "svg").

    Guarantee
        Every step is drawn where it is. The same summaries give the same bytes with the same
        matplotlib, and matplotlib's global state is as it was.

    Raises
    ------
    MissingExtra
        Without matplotlib.
    """
    if not summaries:
        raise InvalidArgument("At least one run is needed for a plot.")
    check_available()
    with own_settings():
        return saved(_figure(summaries))


def _figure(summaries: Sequence[Summary]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    end = _end_of_axis(summaries)
    for position, summary in enumerate(summaries):
        _draw_curve(axes, summary, position, end)
    _draw_limits(axes, summaries)
    _label(axes, summaries, end)
    return figure


def _end_of_axis(summaries: Sequence[Summary]) -> float:
    ends = [s.largest_radius for s in summaries if s.largest_radius is not None]
    ends += [float(s.curve.radius[np.isfinite(s.curve.radius)][-1]) for s in summaries]
    return 1.04 * max(ends) or 1.0


def _draw_curve(axes: Any, summary: Summary, position: int, end: float) -> None:
    curve = summary.curve
    inside = np.isfinite(curve.radius)
    radius, count = curve.radius[inside], curve.count[inside]
    beyond = int(curve.count[~inside].sum())  # right at every radius: a TSV may say so
    tail = [radius[-1], end] if beyond else [radius[-1]]  # the fall; no line along zero after it
    x = np.concatenate([radius, tail])
    steps = np.concatenate([count, [beyond] * len(tail)]) / curve.examples
    error = np.sqrt(steps * (1 - steps) / curve.examples)
    round_, colour = divmod(position, len(COLOURS))
    style = {"color": COLOURS[colour], "zorder": 3 - 0.01 * position}
    axes.fill_between(
        x,
        100 * np.clip(steps - error, 0, 1),
        100 * np.clip(steps + error, 0, 1),
        step="pre",
        alpha=0.18,
        linewidth=0,
        **style,
    )
    dashes = DASHES[round_ % len(DASHES)]
    label = summary.name if summary.terms is None else f"{summary.name}, {summary.terms.mechanism}"
    axes.step(x, 100 * steps, where="pre", linewidth=1.7, linestyle=dashes, label=label, **style)
    axes.plot(
        [0],
        [100 * summary.share],
        marker="o",
        markersize=6.5,
        markeredgecolor="white",
        clip_on=False,
        color=style["color"],
        zorder=5,
    )


def _draw_limits(axes: Any, summaries: Sequence[Summary]) -> None:
    """A faint line where n unanimous draws end; in the run's colour where there are several."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    single = len(summaries) == 1
    drawn = set()
    for position, summary in enumerate(summaries):
        limit = summary.largest_radius
        if limit is None or limit in drawn:
            continue
        drawn.add(limit)
        colour = FAINT if single else COLOURS[position % len(COLOURS)]
        axes.axvline(limit, color=colour, linewidth=0.9, dashes=(4, 3), alpha=0.75, zorder=1)
        if single and summary.terms is not None:
            axes.text(
                limit,
                0.985,
                f"largest possible at n = {grouped(summary.terms.n)}, "
                f"alpha = {summary.terms.alpha:g}",
                transform=blended_transform_factory(axes.transData, axes.transAxes)
                + ScaledTranslation(-4 / 72, 0, axes.figure.dpi_scale_trans),
                rotation=90,
                ha="right",
                va="top",
                fontsize=8.5,
                color=FAINT,
                zorder=1,
            )


def _label(axes: Any, summaries: Sequence[Summary], end: float) -> None:
    first = summaries[0]
    axes.set_xlim(0, end)
    axes.set_ylim(0, 108)  # room for the words over a marker at 100 %
    axes.set_yticks(range(0, 101, 20))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.tick_params(length=0, pad=6)
    names = {radius_axis(s.terms) for s in summaries}
    axes.set_xlabel(names.pop() if len(names) == 1 else radius_axis(None))
    title = share_name(first.labelled)
    axes.set_ylabel(f"{title} (% of examples)")
    if len(summaries) > 1:
        axes.set_title(title.capitalize(), loc="left", fontweight="bold", pad=26)
        _subtitle(axes, "dashed: the largest radius possible at a run's n and alpha")
        axes.legend(fontsize=9.5, facecolor="white", edgecolor="none", framealpha=1.0)
        return
    axes.set_title(first.name, loc="left", fontweight="bold", pad=26)
    _subtitle(axes, settings(first))
    axes.annotate(
        f"{'accuracy' if first.labelled else 'not abstained'} {100 * first.share:.1f} %",
        (0, 100 * first.share),
        xytext=(8, 7),  # over the curve, which only falls
        textcoords="offset points",
        fontsize=9,
        color=COLOURS[0],
    )


def _subtitle(axes: Any, text: str) -> None:
    axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=9, color=FAINT)
