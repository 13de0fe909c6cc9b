"""Accuracy under attack as a table and as a plot, certified accuracy beneath it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pixeldp_fast.attacks.curve import AttackCurve
from pixeldp_fast.report.curve import Curve
from pixeldp_fast.report.plot import check_available
from pixeldp_fast.report.style import COLOURS, FAINT, own_settings, saved
from pixeldp_fast.report.words import grouped, percent_with_error
from pixeldp_fast.types import Norm


def size_axis(norm: Norm) -> str:
    """What the axis of sizes is called."""
    name = "infinity" if norm is Norm.INF else str(norm)
    return f"size of the attack ({name}-norm, input units)"


def attack_table(curve: AttackCurve, norm: Norm) -> Any:
    """One row per size."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for title in (size_axis(norm), "accuracy under attack", "right"):
        table.add_column(title, justify="right")
    for size, share, error, right in zip(
        curve.sizes, curve.accuracy, curve.standard_error, curve.right, strict=True
    ):
        count = f"{grouped(int(right))} of {grouped(curve.examples)}"
        table.add_row(f"{size:g}", percent_with_error(float(share), float(error)), count)
    return table


def attack_plot(
    curve: AttackCurve, norm: Norm, *, name: str, subtitle: str, certified: Curve | None = None
) -> dict[str, bytes]:
    """Accuracy under attack, by format ("png", "svg").

    Parameters
    ----------
    certified : Curve, optional
        Of certificates of the same model, drawn beneath: the truth lies between the two.

    Raises
    ------
    MissingExtra
        Without matplotlib.
    """
    check_available()
    with own_settings():
        return saved(_figure(curve, norm, name, subtitle, certified))


def _figure(
    curve: AttackCurve, norm: Norm, name: str, subtitle: str, certified: Curve | None
) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    end = 1.04 * float(curve.sizes[-1]) or 1.0
    share, error = 100 * curve.accuracy, 100 * curve.standard_error
    low, high = (share - error).clip(0, 100), (share + error).clip(0, 100)
    axes.fill_between(curve.sizes, low, high, color=COLOURS[1], alpha=0.18, linewidth=0)
    axes.plot(
        curve.sizes, share, color=COLOURS[1], marker="o", markersize=5, clip_on=False, zorder=4,
        label="accuracy under attack: at most so much is robust",
    )  # fmt: skip
    if certified is not None:
        radius = certified.radius[np.isfinite(certified.radius)]
        steps = 100 * np.append(certified.share[: len(radius)], 0.0)  # the fall after the last
        axes.step(
            np.append(radius, radius[-1]), steps, where="pre", color=COLOURS[0], linewidth=1.7,
            label="certified accuracy: at least so much is robust",
        )  # fmt: skip
    axes.set_xlim(0, end)
    axes.set_ylim(0, 104)
    axes.set_yticks(range(0, 101, 20))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.tick_params(length=0, pad=6)
    axes.set_xlabel(size_axis(norm))
    axes.set_ylabel("accuracy (% of examples)")
    axes.set_title(name, loc="left", fontweight="bold", pad=26)
    axes.text(0, 1.03, subtitle, transform=axes.transAxes, fontsize=9, color=FAINT)
    axes.legend(fontsize=9.5, facecolor="white", edgecolor="none", framealpha=1.0)
    return figure
