"""The engine's chart: every contender's rate over that of the strongest of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.engine_report import NATIVE, Measured, measured
from bench.markdown import Cells

OURS_COLOUR, OTHER_COLOUR = "#c44e52", "#8c9bb0"
BAR_INCHES = 0.26


def draw(rows: list[Cells], path: Path, machine: str) -> None:
    """Save the chart of one machine's rows; the suffix of `path` chooses the format."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = measured(rows)
    heights = [len(one.contenders()) + 2 for one in panels]
    with plt.rc_context({"svg.hashsalt": "bench", "font.size": 9}):
        figure, axes = plt.subplots(
            len(panels),
            1,
            squeeze=False,
            figsize=(7.5, BAR_INCHES * sum(heights) + 0.6),
            height_ratios=heights,
            layout="constrained",
        )
        for axis, one in zip(axes[:, 0], panels, strict=True):
            _panel(axis, one)
        axes[-1, 0].set_xlabel(f"draws per second, strongest other = 1; one thread of {machine}")
        metadata = {"Date": None} if path.suffix == ".svg" else None  # the same bytes every time
        figure.savefig(path, metadata=metadata, dpi=150)
        plt.close(figure)


def _panel(axis: Any, one: Measured) -> None:
    names = one.contenders()[::-1]  # matplotlib counts from the bottom
    rates = [one.value(name, "best rate") or 0.0 for name in names]
    unit = one.value(one.strongest() or names[-1], "best rate") or 1.0
    colours = [OURS_COLOUR if name == NATIVE else OTHER_COLOUR for name in names]
    bars = axis.barh(names, [rate / unit for rate in rates], color=colours, height=0.72)
    axis.bar_label(bars, [f"{rate / unit:.2f}" for rate in rates], padding=3, fontsize=8)
    axis.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    axis.set_title(f"{one.title} ({one.isa})", loc="left", fontsize=9, fontweight="bold")
    axis.margins(x=0.08)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
