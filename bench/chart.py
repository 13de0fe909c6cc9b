"""The engine's chart: every contender's rate over that of the strongest of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.engine_report import NATIVE, Measured, measured
from bench.markdown import Cells

OURS_COLOUR, OTHER_COLOUR = "#c44e52", "#8c9bb0"
BAR_INCHES, PANEL_INCHES = 0.21, 5.2


def draw(rows: list[Cells], path: Path, machine: str) -> None:
    """Save the chart of one machine's rows; the suffix of `path` chooses the format.

    Networks are rows of panels, instruction sets columns, all with one scale.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {(one.network, one.isa): one for one in measured(rows)}
    networks, isas = (list(dict.fromkeys(key[i] for key in panels)) for i in range(2))
    heights = [
        2.5 + max(len(one.contenders()) for key, one in panels.items() if key[0] == network)
        for network in networks
    ]
    with plt.rc_context({"svg.hashsalt": "bench", "font.size": 8}):
        figure, axes = plt.subplots(
            len(networks),
            len(isas),
            squeeze=False,
            sharex=True,
            figsize=(PANEL_INCHES * len(isas), BAR_INCHES * sum(heights) + 0.5),
            height_ratios=heights,
            layout="constrained",
        )
        for row, network in enumerate(networks):
            for column, isa in enumerate(isas):
                _panel(axes[row, column], panels.get((network, isa)))
        figure.supxlabel(
            f"draws per second, strongest other = 1; one thread of {machine}", fontsize=9
        )
        metadata = {"Date": None} if path.suffix == ".svg" else None  # the same bytes every time
        figure.savefig(path, metadata=metadata, dpi=150)
        plt.close(figure)


def _panel(axis: Any, one: Measured | None) -> None:
    if one is None:
        axis.set_axis_off()
        return
    names = one.contenders()[::-1]  # matplotlib counts from the bottom
    rates = [one.value(name, "best rate") or 0.0 for name in names]
    unit = one.value(one.strongest() or names[-1], "best rate") or 1.0
    colours = [OURS_COLOUR if name == NATIVE else OTHER_COLOUR for name in names]
    axis.axvline(1.0, color="black", linewidth=0.8, linestyle=":", zorder=0)
    bars = axis.barh(names, [rate / unit for rate in rates], color=colours, height=0.72)
    patch = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    labels = [f"{rate / unit:.2f}" for rate in rates]
    axis.bar_label(bars, labels, padding=3, fontsize=7, bbox=patch)
    axis.set_title(f"{one.title} ({one.isa})", loc="left", fontsize=8, fontweight="bold")
    axis.margins(x=0.08)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
